"""The cost of a step beyond its forward, and of a search beyond its rows.

`python evals/step_overhead.py`. One thread, eager, the bundled model. The step: greedy, 64 prompt
tokens, a block of 32 with the dual cache. The search: `best_of(16)` with all rows at once against
`generate(n=16)`, temperature 1.
"""

from argparse import ArgumentParser

import torch

import dlm
from dlm.evals.search.overhead import search_overhead
from dlm.evals.speed import step_overhead

SEARCHES = (
    {},
    {"unmask": "topk"},
    {"unmask": "threshold(0.9)", "blocks": "fixed(8)", "cache": "dual"},
)

if __name__ == "__main__":
    ArgumentParser(description=__doc__).parse_args()  # there are no options
    torch.set_num_threads(1)
    engine = dlm.load(device="cpu")
    print(f"torch {torch.__version__}, one thread, model 'tiny', dual cache, window 32, prompt 64")
    print(step_overhead(engine))
    for options in SEARCHES:
        print(search_overhead(engine, **options), options or "the preset of the model")
