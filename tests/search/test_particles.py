"""Weights, resampling, and the points at which particles meet."""

from math import inf, log
from random import Random

import pytest

from dlm.errors import InvalidRequest
from dlm.search.policies.particles import cut, effective, log_mean_exp, shares, systematic
from dlm.search.policies.smc import SMC
from dlm.search.work import END, Point


def test_equal_weights_give_each_index_once():
    assert systematic([0.25] * 4, 0.0) == [0, 1, 2, 3]
    assert systematic([0.25] * 4, 0.999999) == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(20))
def test_systematic_counts_are_rounded_shares(seed):
    rng = Random(seed)
    weights = shares([rng.gauss(0, 2) for _ in range(7)])
    found = systematic(weights, rng.random())
    assert len(found) == 7
    for index, weight in enumerate(weights):
        assert abs(found.count(index) - 7 * weight) < 1


def test_systematic_is_unbiased():
    weights = [0.5, 0.3, 0.15, 0.05]
    draws = [systematic(weights, (k + 0.5) / 1000) for k in range(1000)]
    for index, weight in enumerate(weights):
        assert sum(d.count(index) for d in draws) / 4000 == pytest.approx(weight, abs=0.002)


def test_an_index_of_no_weight_is_never_drawn():
    assert systematic([0.0, 1.0, 0.0], 0.0) == [1, 1, 1]
    assert systematic([0.0, 0.5, 0.5, 0.0], 0.999) == [1, 1, 2, 2]


def test_weights_of_nothing_are_equal():
    assert shares([-inf, -inf]) == [0.5, 0.5]
    assert shares([-inf, 1000.0]) == [0.0, 1.0]
    assert effective([0.0] * 5) == pytest.approx(5)
    assert effective([-inf, 0.0]) == 1
    assert log_mean_exp([log(1), log(3)]) == pytest.approx(log(2))
    assert log_mean_exp([-inf, -inf]) == -inf


def test_cuts_of_the_canvas():
    assert [cut(4, number) for number in range(4)] == [
        Point(open_ratio=0.75),
        Point(open_ratio=0.5),
        Point(open_ratio=0.25),
        END,
    ]
    assert cut(0, 7) == Point(blocks=1)


@pytest.mark.parametrize(
    "wrong", [{"potential": "least"}, {"pick": "first"}, {"n": 2.5}, {"guesses": 1}]
)
def test_fields_of_objects_are_checked_as_arguments_are(wrong):
    with pytest.raises(InvalidRequest, match=next(iter(wrong))) as caught:
        SMC(**wrong)
    assert caught.value.param == "search"


@pytest.mark.parametrize(
    "wrong", [{"n": 0}, {"segments": -1}, {"ess": 1.5}, {"lam": -1.0}, {"lookahead": -1}]
)
def test_wrong_arguments(wrong):
    with pytest.raises(InvalidRequest) as caught:
        SMC(**wrong)
    assert caught.value.param == next(iter(wrong))
