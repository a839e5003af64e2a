"""How likely a continuation is: a bound of its log-likelihood, by masking parts of it.

For a continuation of `l` tokens, `k` uniform in 1..l and `k` positions masked at random,

    log p(y | x) >= E[ l / k * sum over the masked i of log p(y_i | x, y without the masked) ]

(LLaDA, arXiv 2502.09992, eq. 6). A continuation so short that all ways to mask it are no more than
the draws is not sampled: the expectation is summed up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, pairwise
from math import comb
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

import dlm
from dlm.errors import InvalidRequest

MOST_SUMMED: Final = 12
"""Beyond so many tokens no expectation is summed up: they can be masked in 4,095 ways."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How bounds are estimated.

    `draws`: maskings of a continuation, stratified over the number that is masked · `batch`:
    canvases of one forward · `seed`: same seed, same maskings; continuations of one context share
    them, so that their difference varies less than each of them · `cfg_scale`: guidance against the
    context masked out (0: none), twice the forwards.
    """

    draws: int = 128
    batch: int = 16
    seed: int = 0
    cfg_scale: float = 0.0

    def __post_init__(self) -> None:
        for name in ("draws", "batch"):
            if getattr(self, name) < 1:
                raise InvalidRequest(name, f"must be at least 1, got {getattr(self, name)}")
        if self.cfg_scale < 0:
            raise InvalidRequest("cfg_scale", f"must be at least 0, got {self.cfg_scale}")


class Pair(NamedTuple):
    """Ids of a context and of what follows it; pairs of one `seed` (at least 0) share maskings."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]
    seed: int = 0


class Masked(NamedTuple):
    """A canvas to compute: of the pair `pair`, `open` are masked, and what they come to counts
    `weight`.
    """

    pair: int
    ids: tuple[int, ...]
    open: tuple[int, ...]
    weight: float


def log_bounds(
    engine: dlm.Engine,
    pairs: Sequence[Pair],
    how: Likelihood,
    tell: Callable[[int], None] = lambda canvases: None,
) -> list[float]:
    """A lower bound of the log-likelihood (nats) of each continuation, given its context.

    Models of trained blocks are scored block by block, what is before a block unmasked, as they
    decode. `tell` hears of the canvases that are computed. Raises `InvalidRequest` where a pair
    does not fit the model, and for models without a mask.
    """
    for pair in pairs:
        _check(engine, pair)
    found, canvases = [0.0] * len(pairs), _canvases(engine, pairs, how)
    with torch.inference_mode():
        while few := list(islice(canvases, how.batch)):
            sums = _log_probs(engine, pairs, few, how.cfg_scale)
            for masked, logp in zip(few, sums, strict=True):
                found[masked.pair] += masked.weight * logp
            tell(len(few))
    return found


def _check(engine: dlm.Engine, pair: Pair) -> None:
    info, length = engine.info, len(pair.context) + len(pair.continuation)
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
            seed = (how.seed, pair.seed, number)
            for chosen, weight in maskings(end - start, how.draws, seed):
                opened = tuple(start + i for i in chosen)
                canvas = list(ids[:end])
                for position in opened:
                    canvas[position] = mask_id
                yield Masked(index, tuple(canvas), opened, weight)


def _spans(info: dlm.ModelInfo, start: int, end: int) -> list[tuple[int, int]]:
    """What is masked together: all of it, or block by block where the model was trained so."""
    if info.attention == "full":
        return [(start, end)] if end > start else []
    size = info.alignment
    cuts = [start, *range((start // size + 1) * size, end, size), end]
    return [(left, right) for left, right in pairwise(cuts) if right > left]


def maskings(
    length: int, draws: int, seed: Sequence[int]
) -> Iterable[tuple[tuple[int, ...], float]]:
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
