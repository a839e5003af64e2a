"""What caches save in time: `python evals/cache_speed.py`, about ten minutes.

256 new tokens in 64 steps after prompts of 64, 256 and 1,024 tokens, one request, one thread. The
longest canvas is beyond what the bundled models have learned: their times count here, not their
answers. Writes `evals/results/cache-speed`.
"""

import json
from argparse import ArgumentParser
from dataclasses import asdict, replace
from pathlib import Path

import torch

import dlm
from dlm.evals.cache_speed import cache_speeds, lines, machine

PROMPTS = (64, 256, 1024)
CANVAS = 1280
FULL = ("prefix", "dual", "freecache('prompt')", "freecache('block')", "delayed")
OUT = Path(__file__).parent / "results" / "cache-speed"

if __name__ == "__main__":
    ArgumentParser(description=__doc__).parse_args()  # there are no options
    torch.set_num_threads(1)
    header = machine()
    text, data = [], {"header": header}
    for model, caches in (("tiny", FULL), ("tiny-block", ("block_causal",))):
        loaded = dlm.load(model, device="cpu")
        engine = dlm.Engine(loaded.model, replace(loaded.info, max_length=CANVAS), loaded.text)
        found = [s for n in PROMPTS for s in cache_speeds(engine, caches, prompt_tokens=n)]
        data[model] = [asdict(speed) for speed in found]
        text += [f"### {model}", "", *lines(found), ""]
        print("\n".join(text[-len(found) - 4 :]))
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "table.md").write_text("\n".join(text))
    (OUT / "results.json").write_text(json.dumps(data, indent=1) + "\n")
