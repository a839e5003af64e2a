"""Sweeps of a run: how accurate a rule is along its parallelism, and at equal cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from dlm.evals.sampling import Sample
from dlm.evals.settings import Setting
from dlm.evals.statistics import AUP, Interval, aup, fewest_items, unseen, widened
from dlm.evals.summary import Comparison, Figures, mean, shares_of
from dlm.evals.verdicts import Verdicts

LOSS: Final = -0.03
"""A setting is as good as the baseline when its paired 95% bound is above this."""
FEWEST: Final = fewest_items(-LOSS)
"""With fewer items not even answers that all agree exclude that loss: no verdict is given."""
UNKNOWN: Final = Interval(math.nan, math.nan)
COSTS: Final = 3
"""Costs at which two sweeps are compared."""
RESAMPLES: Final = 2000


class Mark(NamedTuple):
    """An item under a setting: the share of its samples that is right, and the forwards and tokens
    of one of them.
    """

    right: float
    nfe: float
    tokens: float = 0.0


Spent = Mapping[str, Mark]
"""Item -> its mark under a setting."""


@dataclass(frozen=True, slots=True)
class Point:
    """A setting of a sweep on a task: accuracy (a share), NFE, TPF, and the lower bound of its
    paired difference to the baseline (0 for the baseline itself).
    """

    setting: str
    accuracy: float
    nfe: float
    tpf: float
    low: float


@dataclass(frozen=True, slots=True)
class AtCost:
    """Gain of a sweep over another one at the same mean NFE, with its bootstrap interval."""

    nfe: float
    difference: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class SweepFigures:
    """One sweep on one task.

    aup, interval: accuracy under parallelism, over the items that all settings of the task have
    n: these items
    dropped: settings that `aup` leaves out
    fastest: the setting with the highest TPF of those as good as the baseline (None: none is, or
        the items are too few to decide)
    against: the difference to the reference sweep where their costs overlap
    """

    sweep: str
    task: str
    aup: float
    dropped: int
    fastest: Point | None
    against: Sequence[AtCost]
    n: int = 0
    interval: Interval = UNKNOWN


class Curves(NamedTuple):
    """Settings over the items they share: right, NFE and tokens, each `[settings, items]`."""

    right: np.ndarray
    nfe: np.ndarray
    tokens: np.ndarray


def marks_of(samples: Sequence[Sample], verdicts: Verdicts) -> dict[str, Mark]:
    """The items of which samples are judged."""
    shares, own = shares_of(verdicts), dict[str, list[Sample]]()
    for sample in samples:
        if (sample.item, sample.index) in verdicts:
            own.setdefault(sample.item, []).append(sample)
    return {
        item: Mark(shares[item], mean([s.nfe for s in some]), mean([s.tokens for s in some]))
        for item, some in own.items()
    }


def sweeps_of(
    settings: Sequence[Setting],
    figures: Sequence[Figures],
    comparisons: Sequence[Comparison],
    marks: Mapping[tuple[str, str], Spent],
) -> list[SweepFigures]:
    """Sum up each sweep of a run on each task. The first sweep of several settings is the
    reference that the others are compared with at equal cost. `marks`: (setting, task) -> items.
    """
    members: dict[str, list[str]] = {}
    for setting in settings:
        if setting.sweep:
            members.setdefault(setting.sweep, []).append(setting.name)
    reference = next((sweep for sweep, names in members.items() if len(names) > 1), "")
    low = {(c.setting, c.task): c.paired.interval.low for c in comparisons}
    found = []
    for task in dict.fromkeys(f.task for f in figures):
        # Without an answer, or a known cost, a setting is no point of a curve.
        rows = {f.setting: f for f in figures if f.task == task and f.n and not math.isnan(f.tpf)}
        points = {
            name: Point(name, f.accuracy, f.nfe, f.tpf, low.get((name, task), 0.0))
            for name, f in rows.items()
        }
        items = _shared([marks[name, task] for name in rows])
        best = _columns([marks[name, task] for name in rows], items).right
        for sweep, every in members.items():
            names = [name for name in every if name in rows]
            if not names or not items:
                continue
            other = [marks[n, task] for n in members.get(reference, []) if n in rows]
            own = [marks[n, task] for n in names]
            against = [] if sweep == reference else at_equal_cost(own, other)
            fewest = min(rows[name].n for name in names)
            fastest = fastest_of([points[n] for n in names]) if fewest >= FEWEST else None
            area = area_of(_columns(own, items), best)
            found.append(SweepFigures(sweep, task, *area[:2], fastest, against, *area[2:]))
    return found


def fastest_of(points: Sequence[Point]) -> Point | None:
    """The point with the highest TPF of those that lose no more than `LOSS`."""
    return max((p for p in points if p.low > LOSS), key=lambda p: p.tpf, default=None)


def area_of(own: Curves, best: np.ndarray, *, seed: int = 0) -> tuple[float, int, int, Interval]:
    """AUP of a sweep, the settings it drops, the number of items, and the interval of it.

    `best [settings, items]`: marks of every setting on the task, of which the most accurate is the
    measure. The interval is the percentile bootstrap over items, and never narrower than with
    unseen items that are all wrong, or all right.
    """
    n = own.right.shape[1]

    def area(weights: np.ndarray, scale: float = 1.0, more: float = 0.0) -> AUP:
        right, nfe, tokens = (part @ weights / n for part in own)
        percent = 100 * (more + scale * right)
        top = 100 * (more + scale * float((best @ weights / n).max()))
        return aup(list(zip(tokens / np.maximum(nfe, 1e-9), percent, strict=True)), top)

    found, open_ = area(np.ones(n)), unseen(n)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)
    low, high = np.quantile([area(weights).value for weights in drawn], [0.025, 0.975])
    lowest = area(np.ones(n), 1 - open_).value
    highest = area(np.ones(n), 1 - open_, open_).value
    interval = Interval(float(min(low, lowest)), float(max(high, highest)))
    return found.value, found.dropped, n, interval


def at_equal_cost(ours: Sequence[Spent], theirs: Sequence[Spent], *, seed: int = 0) -> list[AtCost]:
    """The accuracy of one sweep less that of another at costs that both reach.

    Each sweep is a list of settings; accuracy and NFE are means over the items that all share, and
    accuracy runs linearly between neighbours. The interval is the percentile bootstrap over items,
    with room for unseen ones: costs and accuracies are averaged anew over the same draw for both.
    """
    items = _shared([*ours, *theirs])
    if len(items) == 0 or min(len(ours), len(theirs)) < 2:
        return []
    curves = [_columns(sweep, items) for sweep in (ours, theirs)]
    means = [(c.nfe.mean(axis=1), c.right.mean(axis=1)) for c in curves]
    low = max(nfe.min() for nfe, _ in means)
    high = min(nfe.max() for nfe, _ in means)
    if low >= high:
        return []
    costs = np.geomspace(low, high, COSTS + 2)[1:-1]
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(items), np.full(len(items), 1 / len(items)), RESAMPLES)
    drawn = [(c.nfe @ weights.T / len(items), c.right @ weights.T / len(items)) for c in curves]
    found = []
    for cost in costs:
        here, there = (_at(cost, *mean) for mean in means)
        gains = [
            _at(cost, *(column[:, n] for column in drawn[0]))
            - _at(cost, *(column[:, n] for column in drawn[1]))
            for n in range(RESAMPLES)
        ]
        bounds = Interval(*map(float, np.quantile(gains, [0.025, 0.975])))
        interval = widened(bounds, here - there, len(items), -1.0, 1.0)
        found.append(AtCost(float(cost), here - there, interval))
    return found


def _shared(marks: Sequence[Spent]) -> list[str]:
    """The items that all settings have."""
    return sorted(set.intersection(*map(set, marks))) if marks else []


def _columns(sweep: Sequence[Spent], items: Sequence[str]) -> Curves:
    """Settings over items, their marks by themselves."""
    table = np.array([[Mark(*marks[item]) for item in items] for marks in sweep], dtype=float)
    return Curves(*np.moveaxis(table.reshape(len(sweep), len(items), 3), 2, 0))


def _at(cost: float, nfe: np.ndarray, accuracy: np.ndarray) -> float:
    """The accuracy at a cost; beyond its ends a curve stays as it is."""
    order = np.argsort(nfe)
    return float(np.interp(cost, nfe[order], accuracy[order]))
