"""The best of n on a known joint is distributed as the largest of n independent scores."""

from __future__ import annotations

import pytest

from dlm.search.policies.sampling import BestOf
from tests.search.joint import Answer, Tabular, by_level, excess
from tests.search.tabular import search

MODEL = Tabular()
RUNS = 1500


def zeros(x: Answer) -> float:
    """The number of tokens 0."""
    return x.count(0)


def largest(n: int) -> dict[float, float]:
    """The distribution of the largest of n independent scores: `F(r) ** n`, taken apart."""
    levels = by_level(MODEL.joint, zeros)
    below, found = 0.0, {}
    for level in sorted(levels):
        found[level] = (below + levels[level]) ** n - below**n
        below += levels[level]
    return found


def best_scores(n: int) -> list[float]:
    return [search(BestOf(n), MODEL, zeros, seed=s).answer.score for s in range(RUNS)]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_best_of_matches_its_formula(n: int) -> None:
    assert excess(best_scores(n), largest(n)) < 2


def test_one_answer_fewer_is_found_out() -> None:
    assert excess(best_scores(4), largest(5)) > 2
