"""What batching gains: `python evals/batching.py`, about ten minutes on one thread.

Rows 1 to 32 over the ragged prompts of the bundled test sets, and Poisson arrivals of short and
long requests, served continuously and in static batches. Writes `evals/results/batching`.
"""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path

import torch

import dlm
from dlm.evals.batching import alone, arrivals, batch_speed, serve
from dlm.evals.cache_speed import machine
from dlm.evals.items import bundled_items

TASKS = ("math", "code", "sudoku", "format", "countdown", "judge")
RULE = {"unmask": "topk", "blocks": "fixed(8)", "cache": "dual"}
REQUESTS = 120
LOAD = 0.8
OUT = Path(__file__).parent / "results" / "batching"


def ragged(count):
    """Prompts of all tasks in turn."""
    items = [bundled_items(task, "test", count) for task in TASKS]
    return [items[i % len(TASKS)][i].prompt for i in range(count)]


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def rows_table(engine):
    found = []
    for rows in (1, 2, 4, 8, 16, 32):
        prompts = ragged(max(16, 3 * rows))
        found.append(batch_speed(engine, prompts, rows, {**RULE, "max_new_tokens": 64}))
    head = ["rows", "tokens/s", "ceiling", "of it", "positions", "attention calls", "padding"]
    cells = [
        [
            s.rows,
            f"{s.tokens_per_second:.0f}",
            f"{s.ceiling:.0f}",
            f"{s.tokens_per_second / s.ceiling:.0%}",
            f"{s.positions:.0f}",
            f"{s.calls:.1f}",
            f"{s.padding:.1%}",
        ]
        for s in found
    ]
    return table(head, cells), found


def arrivals_table(engine):
    engine.scheduler.max_rows = 16
    prompts = ragged(REQUESTS)
    options = [{**RULE, "max_new_tokens": 24 if i % 3 else 96} for i in range(REQUESTS)]
    at_once = serve(engine, prompts, [0.0] * REQUESTS, options, static=False)
    capacity = at_once.requests / at_once.last
    times = arrivals(REQUESTS, LOAD * capacity, seed=1)
    found = [serve(engine, prompts, times, options, static=static) for static in (False, True)]
    found.append(alone(engine, prompts[:40], options[:40]))
    head = ["served", "requests", "tokens/s", "p50 s", "p95 s"]
    cells = [
        [s.name, s.requests, f"{s.tokens_per_second:.0f}", f"{s.p50:.2f}", f"{s.p95:.2f}"]
        for s in found
    ]
    note = f"Offered: {LOAD:.0%} of what {REQUESTS} requests at once reach, that is "
    note += f"{LOAD * capacity:.2f} requests a second; 16 rows; every third asks for 96 tokens, "
    note += "the others for 24."
    return f"{table(head, cells)}\n\n{note}", [at_once, *found]


if __name__ == "__main__":
    ArgumentParser(description=__doc__).parse_args()  # there are no options
    torch.set_num_threads(1)
    engine = dlm.load("tiny", device="cpu")
    header = machine()
    rows, speeds = rows_table(engine)
    print(rows, flush=True)
    service, services = arrivals_table(engine)
    print(service)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "table.md").write_text(f"### Rows\n\n{rows}\n\n### Poisson arrivals\n\n{service}\n")
    data = {
        "header": header,
        "rows": [asdict(s) for s in speeds],
        "arrivals": [asdict(s) for s in services],
    }
    (OUT / "results.json").write_text(json.dumps(data, indent=1) + "\n")
