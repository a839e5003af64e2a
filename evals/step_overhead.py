"""What a decoding step costs beyond its forward: `python evals/step_overhead.py`.

One thread, eager, greedy; 64 prompt tokens, a block of 32 with the dual cache, the bundled model.
"""

import torch

import dlm
from dlm.evals.speed import step_overhead

if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, model 'tiny', dual cache, window 32, prompt 64")
    print(step_overhead(dlm.load(device="cpu")))
