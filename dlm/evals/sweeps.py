"""Sweeps of a run: how accurate a rule is along its parallelism, and at equal cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dlm.evals.grading import Verdicts
from dlm.evals.sampling import Sample
from dlm.evals.settings import Setting
from dlm.evals.statistics import Interval, aup
from dlm.evals.summary import Comparison, Figures

Spent = Mapping[str, tuple[bool, float]]
"""Item -> whether it is right under a setting, and its forwards."""

LOSS: Final = -0.03
"""A setting is as good as the baseline when its paired 95% bound is above this."""
COSTS: Final = 3
"""At so many costs two sweeps are compared."""
RESAMPLES: Final = 2000


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
    """What a sweep gains over another one at the same mean NFE, with its bootstrap interval."""

    nfe: float
    difference: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class SweepFigures:
    """One sweep on one task.

    `aup`: accuracy under parallelism, and how many settings it leaves out · `fastest`: the setting
    with the highest TPF of those as good as the baseline (None: none is) · `against`: the
    difference to the reference sweep where their costs overlap.
    """

    sweep: str
    task: str
    aup: float
    dropped: int
    fastest: Point | None
    against: Sequence[AtCost]


def marks_of(samples: Sequence[Sample], verdicts: Verdicts) -> dict[str, tuple[bool, float]]:
    """The first sample of each item that is judged."""
    first = [sample for sample in samples if sample.index == 0]
    return {s.item: (verdicts[s.item, 0], s.nfe) for s in first if (s.item, 0) in verdicts}


def sweeps_of(
    settings: Sequence[Setting],
    figures: Sequence[Figures],
    comparisons: Sequence[Comparison],
    marks: Mapping[tuple[str, str], Spent],
) -> list[SweepFigures]:
    """What each sweep of a run comes to on each task. The first sweep of several settings is the
    reference that the others are compared with at equal cost. `marks`: (setting, task) -> items.
    """
    members: dict[str, list[str]] = {}
    for setting in settings:
        if setting.sweep:
            members.setdefault(setting.sweep, []).append(setting.name)
    reference = next((names for names in members.values() if len(names) > 1), [])
    low = {(c.setting, c.task): c.paired.interval.low for c in comparisons}
    points = {
        (f.setting, f.task): Point(
            f.setting, f.accuracy, f.nfe, f.tpf, low.get((f.setting, f.task), 0.0)
        )
        for f in figures
    }
    found = []
    for task in dict.fromkeys(f.task for f in figures):
        best = max(f.accuracy for f in figures if f.task == task)
        for sweep, names in members.items():
            if any(math.isnan(points[n, task].tpf) for n in names):
                continue  # its cost is not known
            own, other = ([marks[n, task] for n in group] for group in (names, reference))
            against = [] if names == reference else at_equal_cost(own, other)
            on_task = [points[n, task] for n in names]
            found.append(sweep_figures(sweep, task, on_task, best, against))
    return found


def sweep_figures(
    sweep: str, task: str, points: Sequence[Point], best: float, against: Sequence[AtCost]
) -> SweepFigures:
    """`best`: the highest accuracy of any setting on the task."""
    area = aup([(p.tpf, 100 * p.accuracy) for p in points], 100 * best)
    good = [p for p in points if p.low > LOSS]
    fastest = max(good, key=lambda p: p.tpf, default=None)
    return SweepFigures(sweep, task, area.value, area.dropped, fastest, against)


def at_equal_cost(ours: Sequence[Spent], theirs: Sequence[Spent], *, seed: int = 0) -> list[AtCost]:
    """The accuracy of one sweep less that of another at costs that both reach.

    Each sweep is a list of settings; accuracy and NFE are means over the items that all share, and
    accuracy runs linearly between neighbours. The interval is the percentile bootstrap over items:
    costs and accuracies are averaged anew over the same draw for both.
    """
    items = sorted(set.intersection(*(set(marks) for marks in (*ours, *theirs))))
    if len(items) == 0 or min(len(ours), len(theirs)) < 2:
        return []
    curves = [_columns(sweep, items) for sweep in (ours, theirs)]
    means = [(nfe.mean(axis=1), right.mean(axis=1)) for nfe, right in curves]
    low = max(nfe.min() for nfe, _ in means)
    high = min(nfe.max() for nfe, _ in means)
    if low >= high:
        return []
    costs = np.geomspace(low, high, COSTS + 2)[1:-1]
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(items), np.full(len(items), 1 / len(items)), RESAMPLES)
    drawn = [
        (nfe @ weights.T / len(items), right @ weights.T / len(items)) for nfe, right in curves
    ]
    found = []
    for cost in costs:
        here, there = (_at(cost, *mean) for mean in means)
        gains = [
            _at(cost, *(column[:, n] for column in drawn[0]))
            - _at(cost, *(column[:, n] for column in drawn[1]))
            for n in range(RESAMPLES)
        ]
        bounds = np.quantile(gains, [0.025, 0.975])
        found.append(
            AtCost(float(cost), here - there, Interval(float(bounds[0]), float(bounds[1])))
        )
    return found


def _columns(sweep: Sequence[Spent], items: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """NFE and marks `[settings, items]`."""
    nfe = np.array([[marks[item][1] for item in items] for marks in sweep], dtype=float)
    right = np.array([[marks[item][0] for item in items] for marks in sweep], dtype=float)
    return nfe, right


def _at(cost: float, nfe: np.ndarray, accuracy: np.ndarray) -> float:
    """The accuracy at a cost; beyond its ends a curve stays as it is."""
    order = np.argsort(nfe)
    return float(np.interp(cost, nfe[order], accuracy[order]))
