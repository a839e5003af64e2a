"""What a decoding step costs beyond its forward: `python evals/step_overhead.py`.

One thread, eager, greedy; 64 prompt tokens, a block of 32 with the dual cache, the bundled model.
"""

from argparse import ArgumentParser

import torch

import dlm
from dlm.evals.speed import step_overhead

if __name__ == "__main__":
    ArgumentParser(description=__doc__).parse_args()  # there are no options
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, model 'tiny', dual cache, window 32, prompt 64")
    print(step_overhead(dlm.load(device="cpu")))
