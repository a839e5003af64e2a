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
    fewest_items,
    holm,
    mean_interval,
    paired,
    pass_at_k,
    percentile,
    signs_turned,
    tango,
    unseen,
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


@pytest.mark.parametrize(
    ("gained", "lost", "n", "confidence", "low", "high"),
    [  # Tango, Statistics in Medicine 17 (1998): tables VII and V
        (9, 3, 32, 0.95, -0.027, 0.390),
        (0, 1, 44, 0.90, -0.096, 0.037),
        # Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014): airway data
        (1, 7, 21, 0.95, -0.517, -0.026),
        # the R package contingencytables (their book's chapter 8): complete response; a boundary
        (6, 16, 161, 0.95, -0.1240, -0.0054),
        (3, 0, 3, 0.95, -0.1230, 1.0),
        # Tang, Tang and Carey, Statistics in Medicine 29 (2010)
        (3, 1, 14, 0.95, -0.1670, 0.4327),
    ],
)
def test_tango_gives_published_values(gained, lost, n, confidence, low, high):
    found = tango(gained, lost, n, confidence)
    digits = 6e-4 if round(low, 3) == low and round(high, 3) == high else 6e-5
    assert found == pytest.approx((low, high), abs=digits)
    turned = tango(lost, gained, n, confidence)
    assert turned == pytest.approx((-found.high, -found.low))


@pytest.mark.parametrize("n", [1, 2, 10, 124, 125, 1000])
def test_items_that_all_agree_leave_room(n):
    """Wilson's and Tango's intervals, and those of shares, are one where nothing varies."""
    open_ = 1.959963984540054**2 / (n + 1.959963984540054**2)
    assert unseen(n) == pytest.approx(open_)
    assert wilson(n, n) == pytest.approx((1 - open_, 1.0))
    assert tango(0, 0, n) == pytest.approx((-open_, open_))
    assert paired([0.5] * n, [0.5] * n).interval == pytest.approx((-open_, open_))
    assert paired([True] * n, [True] * n).interval == pytest.approx((-open_, open_))
    assert mean_interval([1.0] * n) == pytest.approx((1 - open_, 1.0))
    assert mean_interval([0.25] * n) == pytest.approx((0.25 * (1 - open_), 0.25 + 0.75 * open_))
    low, high = mean_interval([0.75] * n, -1.0, 1.0)
    assert low < 0.75 < high < 1


@pytest.mark.parametrize(("margin", "n"), [(0.03, 125), (0.05, 73), (0.01, 381)])
def test_so_many_items_exclude_a_loss(margin, n):
    assert fewest_items(margin) == n
    assert tango(0, 0, n).low > -margin >= tango(0, 0, n - 1).low


@given(st.integers(1, 200), st.data())
def test_tango_holds_what_was_found(n, data):
    gained = data.draw(st.integers(0, n))
    lost = data.draw(st.integers(0, n - gained))
    low, high = tango(gained, lost, n)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    assert high - low > 0.01


def test_tango_covers_where_few_items_differ():
    """The bootstrap of such pairs often has no width at all."""
    rng = np.random.default_rng(2)
    for n, gain, loss in ((20, 0.05, 0.05), (60, 0.01, 0.04), (150, 0.0, 0.02)):
        drawn = rng.multinomial(n, [gain, loss, 1 - gain - loss], size=500)
        held = 0
        for gained, lost, _ in drawn.tolist():
            low, high = tango(gained, lost, n)
            held += low <= gain - loss <= high
        assert held / 500 >= 0.92, (n, gain, loss)


def test_shares_of_several_samples():
    """Sample 0 alone says that nothing has changed; the shares say that much has."""
    rng = np.random.default_rng(4)
    first, second = rng.binomial(16, 0.75, 120) / 16, rng.binomial(16, 0.89, 120) / 16
    found = paired(first.tolist(), second.tolist())
    assert found.difference == pytest.approx(second.mean() - first.mean())
    plain = bootstrap((second - first).tolist())
    assert found.interval.low <= plain.low < plain.high <= found.interval.high
    assert found.interval.low > 0.08
    assert found.p < 1e-3
    assert found.gained == (second > first).sum()
    assert found.n == 120


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), max_size=9))
def test_turned_signs_are_mcnemar(differences):
    gained, lost = differences.count(1.0), differences.count(-1.0)
    first = [d < 0 for d in differences]
    second = [d > 0 for d in differences]
    assert signs_turned(differences) == pytest.approx(paired(first, second).p)
    assert signs_turned([d / 2 for d in differences]) == pytest.approx(paired(first, second).p)
    assert gained + lost or signs_turned(differences) == 1.0


def test_turned_signs_keep_their_level():
    """Shares of equal methods: about 5 in 100 are below 0.05."""
    rng = np.random.default_rng(8)
    draws = rng.binomial(8, 0.6, (2, 300, 25)) / 8
    found = [signs_turned((a - b).tolist(), resamples=400) for a, b in zip(*draws, strict=True)]
    assert 0.02 <= np.mean(np.array(found) <= 0.05) <= 0.09


def test_nothing_measured_is_nothing_known():
    assert wilson(0, 0) == (0.0, 1.0)
    assert tango(0, 0, 0) == (-1.0, 1.0)
    assert mean_interval([]) == (0.0, 1.0)
    found = paired([], [])
    assert (found.p, found.interval, found.n) == (1.0, (-1.0, 1.0), 0)
    assert math.isnan(found.difference)
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


def test_the_interval_covers():
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
