"""Steer an answer by a reward of your own: `python examples/anchored.py`.

Every step ranks all tokens anew and takes the lowest back. A reward tilts the ranks and the choice
of tokens, here towards what a causal model finds likely: by its probabilities of candidates, and by
gradients through it.
"""

import torch

import dlm

PROMPT = "Countdown: use 9 3 5 to make 17."
engine, causal = dlm.load(), dlm.load_causal("tiny-ar")  # of one vocabulary
model = causal.model


def likely(draft: dlm.HardDraft) -> torch.Tensor:
    """`[R, W, K]`: the log-probability of each candidate after what stands to its left."""
    logp = causal.logits(draft.canvas).log_softmax(dim=2)  # [R, L, V]: row i predicts position i
    rows = torch.arange(len(logp))[:, None, None]
    return logp[rows, draft.pos[..., None], draft.candidates]


def likely_whole(draft: dlm.SoftDraft) -> torch.Tensor:
    """`[R]`: the log-probability of the soft tokens, to differentiate."""
    length = draft.canvas.shape[1]
    mask = torch.ones(length, length, dtype=torch.bool).tril()
    embeddings = draft.embeddings(model.embedding.weight)  # [R, L, D]
    hidden = model.dense(draft.canvas, mask, inputs=embeddings)
    logp = model.head(hidden).log_softmax(dim=2)[draft.row, draft.pos - 1]  # [M, V]
    said = (draft.probs * logp).sum(dim=1)
    return said.new_zeros(len(draft.canvas)).index_add(0, draft.row, said)


def main() -> None:
    tilts = {
        "no reward": None,
        "candidates": dlm.CandidateReward(likely, beta=1.0, candidates=16),
        "gradients": dlm.GradientReward(likely_whole, steps=4, rate=0.5),
    }
    for name, tilt in tilts.items():
        answer = engine.generate(
            PROMPT, preset="anchored", edit=dlm.Anchored(tilt=tilt), steps=8, max_new_tokens=32
        )
        print(f"{name}, {answer.stats.nfe} forwards: {answer.text!r}")


if __name__ == "__main__":
    main()
