"""Bound the log-likelihood of a continuation by masking parts of it.

For a continuation of `l` tokens, `k` uniform in 1..l and `k` positions masked at random,

    log p(y | x) >= E[ l / k * sum over the masked i of log p(y_i | x, y without the masked) ]

(LLaDA, arXiv 2502.09992, eq. 6). A continuation so short that all ways to mask it are no more than
the draws is not sampled: the expectation is summed up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

import dlm
from dlm.errors import InvalidRequest

MOST_SUMMED: Final = 12
"""Beyond this many tokens no expectation is summed up: they can be masked in 4,095 ways."""


MOST_LOGITS: Final = 2048
"""Rows of logits of one forward: with 126,464 ids 1 GB."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Settings of the estimate of bounds.

    draws: maskings of a continuation, stratified over the number of masked positions
    batch: canvases of one forward
    seed: same seed, same maskings; the continuations of one context share them, so that their
        difference varies less than each of them
    cfg_scale: guidance against the masked context (0: none); doubles the forwards
    """

    draws: int = 128
    batch: int = 16
    seed: int = 0
    cfg_scale: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("draws", 1), ("batch", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InvalidRequest(name, f"must be an integer of at least {least}, got {value!r}")
        scale = self.cfg_scale
        if not isinstance(scale, int | float) or not 0 <= scale < math.inf:
            raise InvalidRequest("cfg_scale", f"must be a number of at least 0, got {scale!r}")


class Pair(NamedTuple):
    """Ids of a context and of what follows it; pairs of one `seed` (at least 0) share maskings."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]
    seed: int = 0


class Masked(NamedTuple):
    """A canvas to compute: of the pair `pair`, `open` are masked, and what they come to counts
    `weight`; `last`: no other one of this pair follows.
    """

    pair: int
    ids: tuple[int, ...]
    open: tuple[int, ...]
    weight: float
    last: bool


def log_bounds(
    engine: dlm.Engine,
    pairs: Sequence[Pair],
    how: Likelihood,
) -> Iterator[tuple[int, float, int]]:
    """A lower bound of the log-likelihood (nats) of each continuation, given its context.

    Gives (number of the pair, bound, canvases computed), the longest pairs first; the bound of an
    empty continuation is 0. Models of trained blocks are scored block by block, what is before a
    block unmasked, as they decode. Raises `InvalidRequest` if a pair does not fit the model, and
    for models without a mask.
    """
    for pair in pairs:
        _check(engine, pair)
    return _bounds(engine, pairs, how)


def _bounds(
    engine: dlm.Engine, pairs: Sequence[Pair], how: Likelihood
) -> Iterator[tuple[int, float, int]]:
    yield from ((n, 0.0, 0) for n, pair in enumerate(pairs) if not pair.continuation)
    bound, count = 0.0, 0
    for few in _batches(_canvases(engine, pairs, how), how.batch):
        with torch.inference_mode():
            sums = _log_probs(engine, pairs, few, how.cfg_scale)
        for masked, logp in zip(few, sums, strict=True):
            bound, count = bound + masked.weight * logp, count + 1
            if masked.last:
                yield masked.pair, bound, count
                bound, count = 0.0, 0


def _batches(canvases: Iterator[Masked], size: int) -> Iterator[list[Masked]]:
    """Up to `size` canvases, fewer if they ask for many logits."""
    few: list[Masked] = []
    wanted = 0
    for masked in canvases:
        if few and (len(few) == size or wanted + len(masked.open) > MOST_LOGITS):
            yield few
            few, wanted = [], 0
        few.append(masked)
        wanted += len(masked.open)
    if few:
        yield few


def _check(engine: dlm.Engine, pair: Pair) -> None:
    info, length = engine.info, len(pair.context) + len(pair.continuation)
    info.check_ids("context", pair.context + pair.continuation)
    if info.mask_id is None:
        raise InvalidRequest("model", "has no mask to estimate likelihoods with")
    if length > info.max_length:
        raise InvalidRequest(
            "context",
            f"and continuation are {length} tokens; the model's limit is {info.max_length}",
        )
    if info.shift and not pair.context:
        raise InvalidRequest("context", "must not be empty: nothing predicts this model's first id")


def _canvases(engine: dlm.Engine, pairs: Sequence[Pair], how: Likelihood) -> Iterator[Masked]:
    """All canvases, the longest pairs first, so that those of one forward are of like lengths."""
    order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i].context + pairs[i].continuation))
    mask_id = engine.info.mask_id
    assert mask_id is not None
    for index in order:
        pair = pairs[index]
        ids = pair.context + pair.continuation
        spans = _spans(engine.info, len(pair.context), len(ids))
        for number, (start, end) in enumerate(spans):
            drawn = maskings(end - start, how.draws, (how.seed, pair.seed, number))
            for at, (chosen, weight) in enumerate(drawn, start=1):
                opened = tuple(start + i for i in chosen)
                canvas = list(ids[:end])
                for position in opened:
                    canvas[position] = mask_id
                last = number == len(spans) - 1 and at == len(drawn)
                yield Masked(index, tuple(canvas), opened, weight, last)


def _spans(info: dlm.ModelInfo, start: int, end: int) -> list[tuple[int, int]]:
    """Spans that are masked together: the whole, or blocks if the model is block-causal."""
    if info.attention == "full":
        return [(start, end)] if end > start else []
    size = info.alignment
    cuts = [start, *range((start // size + 1) * size, end, size), end]
    return [(left, right) for left, right in pairwise(cuts) if right > left]


def maskings(
    length: int, draws: int, seed: Sequence[int]
) -> Sequence[tuple[tuple[int, ...], float]]:
    """Sets of positions to mask out of `length`, each with the weight of its sum of log p.

    Drawn ones: the numbers that are masked are stratified, each by itself uniform in 1..length;
    the first positions of two lengths are masked in the same order under the same seed.
    """
    if length <= MOST_SUMMED and 2**length - 1 <= draws:
        sizes = range(1, length + 1)
        return [
            (chosen, 1 / (k * comb(length, k)))
            for k in sizes
            for chosen in combinations(range(length), k)
        ]
    rng = np.random.default_rng(list(seed))
    shift = rng.random()
    order = rng.random((length, draws)).argsort(axis=0, kind="stable")  # of each draw
    shares = (shift + np.arange(draws) / draws) % 1.0
    counts = 1 + np.floor(shares * length).astype(int)
    return [
        (tuple(sorted(int(i) for i in order[:k, draw])), length / (k * draws))
        for draw, k in enumerate(counts.tolist())
    ]


def _log_probs(
    engine: dlm.Engine, pairs: Sequence[Pair], few: Sequence[Masked], cfg_scale: float
) -> list[float]:
    """For each canvas, the sum of log p of the ids that it masks."""
    length = max(len(masked.ids) for masked in few)
    ids = torch.full((len(few), length), engine.info.pad_id)
    there, wanted = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    targets: list[int] = []
    for row, masked in enumerate(few):
        ids[row, : len(masked.ids)] = torch.tensor(masked.ids)
        there[row, : len(masked.ids)] = 1
        wanted[row, list(masked.open)] = True
        pair = pairs[masked.pair]
        targets += [pair.continuation[at - len(pair.context)] for at in masked.open]
    logits = engine.logits(ids, there, wanted)
    mask_id = engine.info.mask_id
    if cfg_scale and mask_id is not None:
        blind = ids.clone()
        for row, masked in enumerate(few):
            blind[row, : len(pairs[masked.pair].context)] = mask_id
        without = engine.logits(blind, there, wanted)
        logits = without + (1 + cfg_scale) * (logits - without)
    logp = _chosen(logits, targets)
    counts = [len(masked.open) for masked in few]
    return [float(part.sum()) for part in logp.split(counts)]


def _chosen(logits: Tensor, targets: Sequence[int]) -> Tensor:
    """`log softmax` of `logits [N, V]` at one id each, float64 `[N]` on the CPU."""
    picked = logits.gather(1, torch.tensor(targets, device=logits.device)[:, None])[:, 0]
    return (picked - logits.logsumexp(1)).double().cpu()
