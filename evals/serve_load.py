"""A server under load: `python evals/serve_load.py`, about ten minutes on two cores.

Streaming clients with mixed lengths and strategies, some of which disconnect or read slowly; then
the same requests over HTTP and through the engine alone in turn; then SIGTERM in the middle of a
load. Writes `evals/results/serve-load`.
"""

import json
import os
from argparse import ArgumentParser
from pathlib import Path

import torch

import dlm
from dlm.evals.header import session
from dlm.evals.load.measure import compare, drain, soak
from dlm.evals.load.process import ServerProcess
from dlm.evals.load.report import table

OUT = Path(__file__).parent / "results" / "serve-load"


def options():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="of the load with faults")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5, help="of HTTP and the engine in turn")
    parser.add_argument("--requests", type=int, default=256, help="of a round")
    parser.add_argument("--alone", type=int, default=48, help="requests of a round, one by one")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args()


if __name__ == "__main__":
    given = options()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    engine = dlm.load(given.model, device="cpu", max_rows=32)
    arguments = ["--model", given.model, "--device", "cpu", "--max-rows", "32"]
    shared = {"clients": given.clients, "seed": given.seed}
    counts = {name: getattr(given, name) for name in ("rounds", "requests", "alone")}
    told = {name: value for name, value in vars(given).items() if name != "out"}
    found = {"header": {**session(), "options": told}}
    with ServerProcess(arguments, given.out / "server.log") as server:
        if given.seconds:
            found["load"] = soak(server, seconds=given.seconds, **shared)
        if given.rounds:
            found["compared"] = compare(server, engine, **counts, **shared)
        found["drain"] = drain(server, seconds=3, **shared)
    text = table(found)
    print(text)
    (given.out / "table.md").write_text(text)
    (given.out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
