"""Curves of accuracy against the forwards spent, and what is read from them.

A search gives its whole curve: with a budget of B forwards its answer is the best one that was
there by then, and it has spent min(B, all that it spent). A point of the curve of a method is the
mean of both over items and seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from dlm.evals.search.trials import Trial
from dlm.evals.statistics import Interval, widened

RESAMPLES: Final = 2000
POINTS: Final = 97
"""Budgets of a curve, equally far apart in their logarithms: 16 between a number and its double."""


class Curve(NamedTuple):
    """A method on items, means over seeds.

    budgets: forwards, ascending `[points]`
    right: the answer with a budget is right, `[points, items]`
    nfe: forwards that it has spent, `[points, items]`
    """

    budgets: np.ndarray
    right: np.ndarray
    nfe: np.ndarray

    @property
    def accuracy(self) -> np.ndarray:
        """Means over items `[points]`."""
        means: np.ndarray = self.right.mean(axis=1)
        return means

    @property
    def spent(self) -> np.ndarray:
        """Mean forwards `[points]`."""
        means: np.ndarray = self.nfe.mean(axis=1)
        return means


class Estimate(NamedTuple):
    """A number and its 95% interval by the bootstrap over items."""

    value: float
    interval: Interval


def grid(single: float, most: float) -> np.ndarray:
    """The budgets from one answer to the longest search `[points]`."""
    return np.geomspace(single, most, POINTS)


def curve_of(
    seeds: Sequence[Mapping[str, Trial]], items: Sequence[str], budgets: np.ndarray
) -> Curve:
    """The curve of a method over items that all its seeds have."""
    right = np.zeros((len(seeds), len(budgets), len(items)))
    nfe = np.zeros_like(right)
    for number, trials in enumerate(seeds):
        for place, item in enumerate(items):
            trial = trials[item]
            right[number, :, place] = right_at(trial, budgets)
            nfe[number, :, place] = np.minimum(budgets, trial.nfe)
    return Curve(budgets, right.mean(axis=0), nfe.mean(axis=0))


def right_at(trial: Trial, budgets: np.ndarray) -> np.ndarray:
    """1 where the best answer by then is right, else 0; before the first one there is none."""
    times = [nfe for nfe, _ in trial.best]
    marks = np.array([0.0, *(trial.answers[index].right for _, index in trial.best)])
    found: np.ndarray = marks[np.searchsorted(times, budgets, side="right")]
    return found


def oracle_of(
    seeds: Sequence[Mapping[str, Trial]], items: Sequence[str], budgets: np.ndarray
) -> Curve:
    """The same for who takes the right answer as soon as there is one, and stops."""
    plain = curve_of(seeds, items, budgets)
    right = np.zeros_like(plain.right)
    for trials in seeds:
        for place, item in enumerate(items):
            first = min((a.nfe for a in trials[item].answers if a.right), default=np.inf)
            right[:, place] += (budgets >= first) / len(seeds)
    return Curve(budgets, right, plain.nfe)


def random_pick(
    seeds: Sequence[Mapping[str, Trial]], items: Sequence[str], budgets: np.ndarray
) -> Curve:
    """The same search, of which any of the answers so far is taken, each as likely."""
    plain = curve_of(seeds, items, budgets)
    right = np.zeros_like(plain.right)
    for trials in seeds:
        for place, item in enumerate(items):
            answers = trials[item].answers
            shares = np.cumsum([0, *(a.right for a in answers)]) / np.maximum(
                np.arange(len(answers) + 1), 1
            )
            count = np.searchsorted([a.nfe for a in answers], budgets, side="right")
            right[:, place] += shares[count] / len(seeds)
    return Curve(budgets, right, plain.nfe)


def at_nfe(nfe: float, spent: np.ndarray, accuracy: np.ndarray) -> float:
    """The accuracy at mean forwards; beyond its ends a curve stays as it is, before them 0."""
    return 0.0 if nfe < spent[0] else float(np.interp(nfe, spent, accuracy))


def nfe_to_reach(accuracy: float, spent: np.ndarray, reached: np.ndarray) -> float:
    """The mean forwards from which on a curve is at an accuracy first; infinite if it never is."""
    there = np.flatnonzero(reached >= accuracy - 1e-9)
    return float(spent[there[0]]) if len(there) else np.inf


def area(spent: np.ndarray, accuracy: np.ndarray, low: float, high: float) -> float:
    """The mean accuracy over log2(NFE) between two numbers of forwards."""
    places = np.geomspace(low, high, POINTS)
    heights = np.array([at_nfe(place, spent, accuracy) for place in places])
    return float(np.trapezoid(heights, np.log2(places)) / np.log2(high / low))


def draws(items: int, *, seed: int = 0) -> np.ndarray:
    """Weights of items `[resamples, items]`; those of the first row are of the sample itself."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(items, np.full(items, 1 / items), RESAMPLES)
    return np.vstack([np.ones(items), drawn]) / items


def resampled(curve: Curve, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean forwards and accuracy in each resample, each `[resamples, points]`."""
    return weights @ curve.nfe.T, weights @ curve.right.T


def estimated(values: Sequence[float], items: int = 0, least: float = -1.0) -> Estimate:
    """A number of the sample, the first value, with the bounds of its resamples.

    items: if it is a mean over them between `least` and 1, there is room for unlike ones (0: no
        room)
    """
    bounds = np.quantile(values[1:], [0.025, 0.975], method="nearest")
    found = Interval(float(bounds[0]), float(bounds[1]))
    if items:
        found = widened(found, float(values[0]), items, least, 1.0)
    return Estimate(float(values[0]), found)
