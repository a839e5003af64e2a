"""The statistics of a report: intervals, paired comparisons, and curves of accuracy over cost.

Accuracies and their differences are shares between 0 and 1 (AUP alone counts in percent, as its
authors do). No interval shrinks to nothing if all items agree: few items show little, however
alike they are. Needs `scipy`, which the `evals` extra brings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 10_000


class Interval(NamedTuple):
    """Bounds of an estimate."""

    low: float
    high: float


class Paired(NamedTuple):
    """Two methods on the same `n` items.

    `difference` of the second's mean share to the first's, with its `interval`; `gained` and
    `lost`: items of which the second, or the first, has the larger share right; `p`: two-sided.
    """

    difference: float
    interval: Interval
    gained: int
    lost: int
    p: float
    n: int = 0


def wilson(right: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a share (Wilson 1927)."""
    from scipy.stats import binomtest

    if n == 0:
        return Interval(0.0, 1.0)
    interval = binomtest(right, n).proportion_ci(confidence, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def tango(gained: int, lost: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """The score interval of a difference of two shares of the same `n` items.

    Tango, Statistics in Medicine 17 (1998), 891-908: all differences that the score test does not
    reject. It shows as much of items that all agree as Wilson's interval does of items that are all
    right: plus and minus z^2 / (n + z^2).
    """
    from scipy.optimize import brentq

    if n == 0:
        return Interval(-1.0, 1.0)
    z, found, near = _z(confidence), (gained - lost) / n, 1e-12
    low = high = found
    if found > -1:
        low = brentq(lambda d: _score(d, gained, lost, n) - z, -1 + near, found)
    if found < 1:
        high = brentq(lambda d: _score(d, gained, lost, n) + z, found, 1 - near)
    return Interval(float(low), float(high))


def _score(difference: float, gained: int, lost: int, n: int) -> float:
    """Tango's statistic at a supposed difference (his equations 5 to 7): the distance of what was
    found from it over the standard error that it implies.
    """
    a = 2 * n
    b = -gained - lost + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    loss = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)  # likeliest share of losses
    variance = n * (2 * loss + difference * (1 - difference))
    distance = gained - lost - n * difference
    return distance / math.sqrt(variance) if variance > 0 else 0.0


def paired(
    first: Sequence[float],
    second: Sequence[float],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Paired:
    """Compare two methods item by item, by the share of each item's samples that is right.

    Items that are right or wrong: Tango's interval, and McNemar's exact test (McNemar 1947). Shares
    between them (several samples): the interval of the items' mean difference, and the test that
    turns their signs, which is McNemar's where each is right or wrong. Raises `ValueError` when the
    lists are not of one length.
    """
    from scipy.stats import binomtest

    if len(first) != len(second):
        raise ValueError(f"both must have the same items, got {len(first)} and {len(second)}")
    shares = np.asarray([first, second], dtype=float)
    gains, n = shares[1] - shares[0], len(first)
    gained, lost = int((gains > 0).sum()), int((gains < 0).sum())
    if not n:
        return Paired(math.nan, Interval(-1.0, 1.0), 0, 0, 1.0)
    if np.isin(shares, (0.0, 1.0)).all():
        interval = tango(gained, lost, n, confidence)
        p = 1.0 if gained + lost == 0 else float(binomtest(gained, gained + lost, 0.5).pvalue)
    else:
        found = bootstrap(gains.tolist(), confidence=confidence, resamples=resamples, seed=seed)
        interval = widened(found, float(gains.mean()), n, -1.0, 1.0, confidence)
        p = signs_turned(gains.tolist(), resamples=resamples, seed=seed)
    return Paired(float(gains.mean()), interval, gained, lost, p, n)


def signs_turned(
    differences: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """The two-sided p value of a mean difference when each could as well have the other sign.

    Fisher's paired randomization test (1935): exact where all turns can be counted, else over
    `resamples` seeded ones.
    """
    from scipy.stats import permutation_test

    found = np.asarray([d for d in differences if d], dtype=float)  # the others have no sign
    if len(found) < 2:  # one alone is as far from nothing with either sign
        return 1.0
    result = permutation_test(
        (found,),
        lambda turned, axis: turned.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples - 1,
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def mean_interval(
    values: Sequence[float],
    low: float = 0.0,
    high: float = 1.0,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The interval of a mean over items whose values lie between `low` and `high`.

    The percentile bootstrap over items, but never narrower than what `unseen` items leave open:
    that alone remains where all values are the same.
    """
    if not len(values):
        return Interval(low, high)
    found = bootstrap(values, confidence=confidence, resamples=resamples, seed=seed)
    return widened(found, float(np.mean(values)), len(values), low, high, confidence)


def widened(
    found: Interval,
    mean: float,
    n: int,
    low: float = 0.0,
    high: float = 1.0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """An interval that leaves room for items unlike all `n` of which `mean` is the mean."""
    open_ = unseen(n, confidence)
    return Interval(
        min(found.low, mean + open_ * (low - mean)), max(found.high, mean + open_ * (high - mean))
    )


def unseen(n: int, confidence: float = CONFIDENCE) -> float:
    """The share of all items that may be of a kind of which `n` items show none.

    z^2 / (n + z^2), which Wilson's interval leaves open when all are right.
    """
    z2 = _z(confidence) ** 2
    return z2 / (n + z2)


def fewest_items(margin: float, confidence: float = CONFIDENCE) -> int:
    """The fewest items that, if all agree, exclude a difference of `margin`."""
    z2 = _z(confidence) ** 2
    return math.floor(z2 * (1 - margin) / margin) + 1


def _z(confidence: float) -> float:
    """The normal quantile of a two-sided interval."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


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
