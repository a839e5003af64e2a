"""Statistics against published values, closed forms and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.evals.statistics import (
    at_cost,
    aup,
    bootstrap,
    holm,
    paired,
    pass_at_k,
    percentile,
    wilson,
)

BOOLS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [  # by the closed form, and as published for benchmarks of these sizes
        (70, 164, 0.354, 0.503),
        (180, 500, 0.319, 0.403),
        (1029, 1319, 0.757, 0.802),
        (0, 20, 0.0, 0.161),
        (20, 20, 0.839, 1.0),
    ],
)
def test_wilson(right, n, low, high):
    assert wilson(right, n) == pytest.approx((low, high), abs=6e-4)


@given(st.integers(1, 400), st.data())
def test_wilson_is_the_closed_form(n, data):
    right = data.draw(st.integers(0, n))
    z, p = 1.959963984540054, right / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert wilson(right, n) == pytest.approx((middle - half, middle + half), abs=1e-9)


def test_nothing_measured_is_nothing_known():
    assert wilson(0, 0) == (0.0, 1.0)
    assert paired([], []).p == 1.0
    assert math.isnan(percentile([], 0.5))


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [(5, 1, 0.21875), (10, 2, 0.03857421875), (0, 8, 0.0078125), (3, 3, 1.0), (0, 0, 1.0)],
)
def test_mcnemar_exact(gained, lost, p):
    """Two-sided binomial probabilities, by hand."""
    first = [True] * lost + [False] * gained + [True] * 7 + [False] * 4
    second = [False] * lost + [True] * gained + [True] * 7 + [False] * 4
    found = paired(first, second)
    assert (found.gained, found.lost) == (gained, lost)
    assert found.p == pytest.approx(p)
    assert found.difference == pytest.approx((gained - lost) / len(first))


def test_items_must_be_the_same():
    with pytest.raises(ValueError, match="same items, got 2 and 3"):
        paired([True, False], [True, False, True])


@given(BOOLS)
def test_comparing_the_other_way_round_turns_the_signs(pairs):
    first, second = zip(*pairs, strict=True)
    one, other = paired(first, second, resamples=500), paired(second, first, resamples=500)
    assert one.difference == -other.difference
    assert (one.gained, one.lost, one.p) == (other.lost, other.gained, other.p)
    assert one.interval.low - 1e-9 <= one.difference <= one.interval.high + 1e-9


def test_the_bootstrap_covers():
    """Simulated paired runs: the 95% interval holds the truth about 95 times in 100."""
    rng = np.random.default_rng(5)
    truth, covered, runs = 0.08, 0, 400
    for seed in range(runs):
        u = rng.random(200)
        first, second = u < 0.55, (u < 0.55 + truth) ^ (rng.random(200) < 0.15)
        shifted = truth * (1 - 2 * 0.15) + 0.15 * (1 - 2 * 0.55)
        found = paired(first.tolist(), second.tolist(), resamples=1000, seed=seed)
        covered += found.interval.low <= shifted <= found.interval.high
    assert 0.91 <= covered / runs <= 0.98


def test_the_bootstrap_is_the_plain_one():
    """Drawing distinct values together has the law of drawing items one at a time."""
    values = [1.0] * 30 + [-1.0] * 12 + [0.0] * 58
    rng = np.random.default_rng(1)
    plain = rng.choice(values, size=(20_000, 100)).mean(axis=1)
    expected = np.quantile(plain, [0.025, 0.975])
    assert bootstrap(values, resamples=20_000) == pytest.approx(tuple(expected), abs=0.011)
    assert bootstrap(values) == bootstrap(values), "seeded"


def test_holm():
    """The worked example of Holm's procedure, and its order."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_pass_at_k_counts_the_draws():
    """1 - C(n - c, k) / C(n, k)."""
    for n, right, k in [(10, 3, 1), (10, 3, 5), (16, 1, 16), (16, 0, 4), (7, 7, 2), (8, 5, 4)]:
        expected = 1 - math.comb(n - right, k) / math.comb(n, k)
        assert pass_at_k(n, right, k) == pytest.approx(expected)
    with pytest.raises(ValueError, match="k <= n"):
        pass_at_k(4, 2, 5)


def test_aup_of_published_sweeps():
    """GSM8K pairs of d3LLM's leaderboard, best accuracy 74.98."""
    sweeps = {
        72.55: [(1, 72.55)],
        205.78: [(1, 74.79), (2.77, 74.68)],
        637.65: [(1, 74.02), (9.11, 73.09)],
    }
    for value, points in sweeps.items():
        assert aup(points, 74.98).value == pytest.approx(value, abs=0.006)
    worse = aup([(1, 74.02), (9.11, 73.09), (12.0, 60.0)], 74.98)
    assert worse.value == pytest.approx(637.65, abs=0.006)
    assert worse.dropped == 1
    assert aup([], 80.0) == (0.0, 0)
    assert aup([(1, 0.0), (2, 0.0)], 0.0) == (0.0, 0), "nothing is right"


def test_a_curve_is_read_between_its_points_only():
    curve = [(10.0, 0.5), (20.0, 0.7), (5.0, 0.3)]
    assert at_cost(curve, 15.0) == pytest.approx(0.6)
    assert at_cost(curve, 5.0) == pytest.approx(0.3)
    assert at_cost(curve, 4.9) is None
    assert at_cost(curve, 20.1) is None
    assert at_cost([], 1.0) is None


def test_percentiles():
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile([0, 10], 0.95) == pytest.approx(9.5)
