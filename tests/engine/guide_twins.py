"""Textbook decoders with guides, one row at a time: blocks of one length, all that is above a
threshold or the best. What guides keep is in dictionaries, over the whole vocabulary.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from dlm.model.decoder import Decoder
from tests.twins import Run, dense

Change = Callable[[Run, Mapping[int, Tensor], range], Mapping[int, Tensor]]


def decoded(
    decoder: Decoder,
    prompt: Sequence[int],
    new: int,
    block: int,
    threshold: float,
    change: Change,
    causal: int = 0,
) -> Run:
    """`change` makes the guided logits of the open positions of a block from the clean ones."""
    run = Run(decoder, prompt, len(prompt) + new)
    start = len(prompt) // (causal or len(run.ids)) * causal if causal else len(prompt)
    while start < len(run.ids):
        inside = range(start, min(start + block, len(run.ids)))
        while not run.open.isdisjoint(inside):
            rows = change(run, dense(decoder, run.ids, causal), inside)
            guesses = run.guesses("step", rows, inside)
            sure = run.above(guesses, threshold)
            run.commit(sure or run.best({p: c for p, (_, c) in guesses.items()}, 1), guesses)
            run.end_step()
        start += block
    return run


def credited(alpha: float, beta: float, gamma: float) -> Change:
    """dInfer's credit: a number for each position and id."""
    credit: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))

    def change(run: Run, rows: Mapping[int, Tensor], inside: range) -> Mapping[int, Tensor]:
        found = {}
        for p in inside:
            for token in credit[p]:
                credit[p][token] *= beta
        for p in sorted(run.open.intersection(inside)):
            probs = rows[p].double().softmax(0).tolist()
            ranked = sorted((-x, i) for i, x in enumerate(probs) if i != run.mask)
            run.decided(math.log(ranked[0][0] / ranked[1][0]))
            credit[p][ranked[0][1]] += (-ranked[0][0]) ** gamma
            found[p] = rows[p].double().clone()
            for token, c in credit[p].items():
                found[p][token] += alpha * math.log(1 + c)
        return found

    return change


def others_alone(allowed: set[int], at: set[int] | None, prompt: int) -> Change:
    """Only some ids are there, at some positions of the answer or everywhere."""

    def change(run: Run, rows: Mapping[int, Tensor], inside: range) -> Mapping[int, Tensor]:
        found = {}
        for p in run.open.intersection(inside):
            here = at is None or p - prompt in at
            kept = [
                x if not here or i in allowed else -math.inf for i, x in enumerate(rows[p].tolist())
            ]
            found[p] = torch.tensor(kept)
        return found

    return change
