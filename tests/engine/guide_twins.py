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


Reads = Callable[[Run, int], Mapping[int, list[float]]]
"""The log-probabilities that a second model gives to our ids at each position, in a step."""


def reading(
    decoder: Decoder, every: int = 1, ids: Sequence[int] | None = None, causal: int = 0
) -> Reads:
    """A second model that reads the whole canvas in every so many steps; our id i is its `ids[i]`,
    -1 where it has none.
    """
    last: dict[int, Tensor] = {}

    def read(run: Run, size: int) -> Mapping[int, list[float]]:
        known = list(range(size)) if ids is None else list(ids)
        if run.nfe.total() % every == 0:
            last.update(dense(decoder, [max(known[i], 0) for i in run.ids], causal))
        found = {}
        for p, row in last.items():
            logp = row.double().log_softmax(0).tolist()
            found[p] = [logp[i] if i >= 0 else -math.inf for i in known]
        return found

    return read


def contrasted(weight: float, plausible: float, read: Reads) -> Change:
    """RFG with a plausibility mask, id by id."""

    def change(run: Run, rows: Mapping[int, Tensor], inside: range) -> Mapping[int, Tensor]:
        said, found = read(run, len(rows[0])), {}
        for p in run.open.intersection(inside):
            own = rows[p].double().log_softmax(0).tolist()
            most = max(x for i, x in enumerate(own) if i != run.mask)
            guided = []
            for x, y in zip(own, said[p], strict=True):
                if plausible:
                    run.decided(abs(x - most - math.log(plausible)) or math.inf)
                fits = y > -math.inf and math.exp(x) > plausible * math.exp(most)
                guided.append((1 + weight) * x - weight * y if fits else -math.inf)
            found[p] = torch.tensor(guided)
        return found

    return change


def averaged(weights: Sequence[float], *reads: Reads) -> Change:
    """The weighted mean of log-probabilities, id by id."""

    def change(run: Run, rows: Mapping[int, Tensor], inside: range) -> Mapping[int, Tensor]:
        said, found = [read(run, len(rows[0])) for read in reads], {}
        for p in run.open.intersection(inside):
            own = rows[p].double().log_softmax(0).tolist()
            columns = zip(own, *(one[p] for one in said), strict=True)
            found[p] = torch.tensor(
                [
                    sum(w * x for w, x in zip(weights, column, strict=True)) / sum(weights)
                    for column in columns
                ]
            )
        return found

    return change
