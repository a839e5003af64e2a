"""The statistics of a report: intervals, paired comparisons, and curves of accuracy over cost.

Accuracies and their differences are shares between 0 and 1 (AUP alone counts in percent, as its
authors do). Needs `scipy`, which the `evals` extra brings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 10_000


class Interval(NamedTuple):
    """Bounds of an estimate."""

    low: float
    high: float


class Paired(NamedTuple):
    """Two methods on the same items.

    `difference` of the second's accuracy to the first's with its bootstrap `interval`; `gained`
    and `lost`: items that only the second, or only the first, has right; `p`: McNemar's exact test.
    """

    difference: float
    interval: Interval
    gained: int
    lost: int
    p: float


def wilson(right: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a share (Wilson 1927)."""
    from scipy.stats import binomtest

    if n == 0:
        return Interval(0.0, 1.0)
    interval = binomtest(right, n).proportion_ci(confidence, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def paired(
    first: Sequence[bool],
    second: Sequence[bool],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Paired:
    """Compare two methods item by item.

    The interval is the percentile bootstrap over items, seeded; p is two-sided and exact (McNemar
    1947: of the items on which the two differ, each is as likely to be right). Raises `ValueError`
    when the lists are not of one length.
    """
    from scipy.stats import binomtest

    if len(first) != len(second):
        raise ValueError(f"both must have the same items, got {len(first)} and {len(second)}")
    gains = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    gained, lost = int((gains > 0).sum()), int((gains < 0).sum())
    p = 1.0 if gained + lost == 0 else float(binomtest(gained, gained + lost, 0.5).pvalue)
    interval = bootstrap(gains.tolist(), confidence=confidence, resamples=resamples, seed=seed)
    return Paired(float(gains.mean()) if len(gains) else 0.0, interval, gained, lost, p)


def bootstrap(
    values: Sequence[float],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a mean over items (Efron 1979)."""
    found = np.asarray(values, dtype=float)
    if len(found) == 0:
        return Interval(math.nan, math.nan)
    means = _resampled_means(found, resamples, np.random.default_rng(seed))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _resampled_means(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means of `resamples` draws with replacement.

    Equal values are drawn together: a multinomial over the distinct ones has the same law, and
    costs a few numbers a draw where most items agree.
    """
    distinct, counts = np.unique(values, return_counts=True)
    drawn = rng.multinomial(len(values), counts / len(values), size=resamples)
    means: np.ndarray = drawn @ distinct / len(values)
    return means


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values of a family of tests (Holm 1979), in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def pass_at_k(n: int, right: int, k: int) -> float:
    """Unbiased share of draws of `k` from `n` samples with one right (arXiv 2107.03374, eq. 1)."""
    if not 1 <= k <= n or not 0 <= right <= n:
        raise ValueError(f"needs 1 <= k <= n and 0 <= right <= n, got {k=}, {n=}, {right=}")
    return 1.0 - math.prod(1.0 - k / i for i in range(n - right + 1, n + 1))


def at_cost(curve: Sequence[tuple[float, float]], cost: float) -> float | None:
    """The accuracy of a method at `cost`, between the settings of its sweep.

    `curve`: (cost, accuracy) of each setting. Linear between neighbours; None outside the sweep:
    nothing is extrapolated.
    """
    points = sorted(curve)
    if not points or not points[0][0] <= cost <= points[-1][0]:
        return None
    return float(np.interp(cost, [c for c, _ in points], [a for _, a in points]))


class AUP(NamedTuple):
    """Accuracy under parallelism; `dropped`: settings too inaccurate to count."""

    value: float
    dropped: int


def aup(points: Sequence[tuple[float, float]], best: float, alpha: float = 3.0) -> AUP:
    """Accuracy under parallelism of one method's sweep (d3LLM, arXiv 2601.07568).

    `points`: (tokens per forward, accuracy in percent); `best`: highest accuracy of any method
    compared on the task. Settings more than 5 points below the least parallel one are dropped;
    each accuracy y is weighted by `min(exp(-alpha * (1 - y / best)), 1)`, but for the first term.
    Where nothing is right it is 0.
    """
    ordered = sorted(points)
    if not ordered or best <= 0:
        return AUP(0.0, 0)
    kept = [(rho, y) for rho, y in ordered if y >= ordered[0][1] - 5]

    def weighted(y: float) -> float:
        return y * min(math.exp(-alpha * (1 - y / best)), 1.0)

    value = kept[0][0] * kept[0][1]
    for (before, y0), (rho, y1) in pairwise(kept):
        value += 0.5 * (rho - before) * (weighted(y0) + weighted(y1))
    return AUP(value, len(ordered) - len(kept))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that a `share` of the values does not exceed, linear between neighbours."""
    return float(np.quantile(np.asarray(values, dtype=float), share)) if len(values) else math.nan
