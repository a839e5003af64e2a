"""The figures of a run of searches: each method's accuracy along its budgets, beside baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dlm.errors import InvalidRequest
from dlm.evals.search.curves import (
    Curve,
    Estimate,
    area,
    at_nfe,
    curve_of,
    draws,
    estimated,
    grid,
    nfe_to_reach,
    oracle_of,
    random_pick,
    resampled,
)
from dlm.evals.search.methods import baselines
from dlm.evals.search.run import SearchRun
from dlm.evals.search.trials import Trial

BUDGETS: Final = (1, 2, 4, 8, 16, 32, 64)
"""Budgets of a table, in answers' worth of forwards."""
PICK: Final = "random pick"
"""Follows the name of a method of which any answer is taken."""


@dataclass(frozen=True, slots=True)
class SearchFigures:
    """One method on one task.

    accuracy: share of right answers with each of `BUDGETS` that the baseline has, and `spent`
        forwards
    final, nfe: the same of the whole search; `answers` that it has found, and `verdicts` on them
        and on guesses
    verifier_nfe: forwards of verifiers among them
    area: mean accuracy over log2(NFE) between one answer and the longest search
    match: forwards at which it reaches the accuracy of the fixed baseline (infinite: never)
    of_fixed, of_stopping: `match` as a share of the forwards of the fixed baseline, and of those at
        which the baseline with an early stop is there
    gain: its accuracy less the best one of the baseline with an early stop, at the forwards from
        which on that has it
    gain_at_end: the same at all forwards that this baseline takes
    errors: verdicts that failed
    curve, oracle: points (forwards, accuracy); of `oracle` those of who knows the right answer
    """

    task: str
    method: str
    n: int
    seeds: int
    accuracy: Sequence[float]
    spent: Sequence[float]
    final: Estimate
    nfe: float
    answers: float
    verdicts: float
    verifier_nfe: float
    area: Estimate
    match: Estimate
    of_fixed: Estimate
    of_stopping: Estimate
    gain: Estimate
    gain_at_end: Estimate
    errors: int
    curve: Sequence[tuple[float, float]]
    oracle: Sequence[tuple[float, float]]


def all_figures(run: SearchRun, task: str) -> list[SearchFigures]:
    """The figures of a task, and those of each of its rungs where it has several."""
    rungs = sorted({item.rung for item in run.items(task)})
    parts = ["", *rungs] if len(rungs) > 1 else [""]
    return [row for rung in parts for row in figures_of(run, task, rung)]


def figures_of(run: SearchRun, task: str, rung: str = "") -> list[SearchFigures]:
    """The figures of a task, over the items of which all methods and seeds have trials.

    rung: of the items (empty: all of them)

    Raises `InvalidRequest` where there are none, or no baseline.
    """
    trials = {method.name: run.trials(task, method) for method in run.methods[task]}
    stopping, fixed = baselines(task)
    for name in (stopping, fixed):
        if name not in trials:
            raise InvalidRequest("method", f"must name the baseline {name!r} too, of {task!r}")
    shared = set.intersection(*(set(found) for seeds in trials.values() for found in seeds))
    items = sorted(i.id for i in run.items(task) if i.id in shared and rung in ("", i.rung))
    if not items:
        raise InvalidRequest("run", f"no item of {task!r} has trials of all methods")
    every = [seeds[name] for seeds in trials[fixed] for name in items]
    single = float(np.mean([one.answers[0].nfe for one in every]))
    most = max(found[name].nfe for seeds in trials.values() for found in seeds for name in items)
    budgets = grid(single, max(most, 2 * single))
    worth = [k * single for k in BUDGETS if k <= run.most]
    curves = {name: curve_of(seeds, items, budgets) for name, seeds in trials.items()}
    weights, title = draws(len(items)), f"{task}, {rung}" if rung else task
    beside = (curves[stopping], curves[fixed], weights, worth)
    rows = [
        _figures(title, name, curves[name], seeds, items, beside) for name, seeds in trials.items()
    ]
    base = random_pick(trials[stopping], items, budgets)
    named = f"{stopping}, {PICK}"
    picked = _figures(title, named, base, trials[stopping], items, beside)
    return [*rows, picked]


def _figures(
    task: str,
    name: str,
    curve: Curve,
    seeds: Sequence[Mapping[str, Trial]],
    items: Sequence[str],
    beside: tuple[Curve, Curve, np.ndarray, Sequence[float]],
) -> SearchFigures:
    """The figures of one method. `beside`: curves of the baselines, the one with an early stop
    first, weights of resamples, budgets of a table.
    """
    stopping, fixed, weights, worth = beside
    every = [found[item] for found in seeds for item in items]
    oracle = oracle_of(seeds, items, curve.budgets)
    final = estimated(weights @ curve.right[-1], len(items), 0.0)
    return SearchFigures(
        task=task,
        method=name,
        n=len(items),
        seeds=len(seeds),
        accuracy=[_with(budget, curve, curve.accuracy) for budget in worth],
        spent=[_with(budget, curve, curve.spent) for budget in worth],
        final=final,
        nfe=float(np.mean([one.nfe for one in every])),
        answers=float(np.mean([len(one.answers) for one in every])),
        verdicts=float(np.mean([one.verifier_calls for one in every])),
        verifier_nfe=float(np.mean([one.verifier_nfe for one in every])),
        **_compared(curve, stopping, fixed, weights),
        errors=sum(one.verifier_errors for one in every),
        curve=_points(curve),
        oracle=_points(oracle),
    )


def _with(budget: float, curve: Curve, values: np.ndarray) -> float:
    """A value of a curve with a budget: that of the largest one of the grid not above it."""
    return float(values[max(int(np.searchsorted(curve.budgets, budget * (1 + 1e-9))) - 1, 0)])


def _compared(curve: Curve, stopping: Curve, fixed: Curve, weights: np.ndarray) -> dict[str, Any]:
    """Shares and differences of a method and its baselines, with bounds of resampled items."""
    own, base = resampled(curve, weights), resampled(stopping, weights)
    wanted, cost = weights @ fixed.right[-1], weights @ fixed.nfe[-1]
    low, high = curve.budgets[0], curve.budgets[-1]
    areas, match, stops, gains, ends = [], [], [], [], []
    for spent, right, spent_base, right_base, goal in zip(*own, *base, wanted, strict=True):
        areas.append(area(spent, right, low, high))
        match.append(nfe_to_reach(goal, spent, right))
        stops.append(nfe_to_reach(goal, spent_base, right_base))
        best = float(right_base.max())
        gains.append(at_nfe(nfe_to_reach(best, spent_base, right_base), spent, right) - best)
        ends.append(at_nfe(float(spent_base[-1]), spent, right) - best)
    found = np.array(match)
    with np.errstate(invalid="ignore"):
        of_stopping = np.nan_to_num(found / np.array(stops), nan=np.inf, posinf=np.inf)
    return {
        "area": estimated(areas),
        "match": estimated(match),
        "of_fixed": estimated(list(found / cost)),
        "of_stopping": estimated(list(of_stopping)),
        "gain": estimated(gains, curve.right.shape[1]),
        "gain_at_end": estimated(ends, curve.right.shape[1]),
    }


def _points(curve: Curve) -> list[tuple[float, float]]:
    """The points of a curve for a plot."""
    return [(float(x), float(y)) for x, y in zip(curve.spent, curve.accuracy, strict=True)]
