"""Trees on a known joint: the sampler draws its target, the search finds the best answer."""

from math import log
from statistics import mean

import pytest

from dlm.errors import InvalidRequest
from dlm.search.policies import growing
from dlm.search.policies.order import Order
from dlm.search.policies.sampling import BestOf
from dlm.search.policies.tree import Tree
from dlm.search.policies.unmaskfork import UnMaskFork
from tests.search.joint import Tabular, by_level, excess, tilted, variation
from tests.search.tabular import Rule, search

MODEL = Tabular()
DTS = {"select": "draw", "lam": 1.0, "pick": "draw"}


def reward(x):
    """Half a point for each token 0."""
    return x.count(0) / 2


TARGET = tilted(MODEL, reward, 1.0)
LEVELS = by_level(TARGET, lambda x: x.count(0))


def draws(policy, runs=800):
    return [search(policy, MODEL, reward, seed=s).answer.answer.ids for s in range(runs)]


def counts(answers):
    return [x.count(0) for x in answers]


def test_a_tree_draws_the_tilted_distribution():
    found = draws(Tree(32, 3, **DTS))
    assert excess(found, TARGET) < 1.2
    assert excess(counts(found), LEVELS) < 2


def test_the_bias_falls_with_the_rollouts():
    bias = [variation(counts(draws(Tree(n, 3, **DTS))), LEVELS) for n in (1, 4, 32)]
    assert bias[0] > 1.6 * bias[1] > 1.6 * 1.2 * bias[2]


def test_a_sum_in_place_of_the_mean_is_found_out(monkeypatch):
    """A backup without its share of the children, as in a port of the method."""
    right = growing.log_mean_exp
    monkeypatch.setattr(growing, "log_mean_exp", lambda logs: right(logs) + log(len(logs)))
    assert excess(counts(draws(Tree(32, 3, **DTS))), LEVELS) > 2


def test_rollouts_share_their_beginnings():
    table = search(Tree(48, 3), MODEL, reward, seed=1)
    assert len(table.candidates) == 48
    assert table.forwards < 0.8 * 48 * 6


def test_answers_and_costs_do_not_depend_on_when_scores_are_told():
    one = search(Tree(24, 3, parallel=1), MODEL, reward, seed=3)
    again = search(Tree(24, 3, parallel=1), MODEL, reward, seed=3)
    assert [c.answer.ids for c in one.candidates] == [c.answer.ids for c in again.candidates]


def test_more_rollouts_begin_with_the_same_ones():
    few = search(Tree(8, 3), MODEL, reward, seed=3)
    more = search(Tree(24, 3), MODEL, reward, seed=3)
    ids = [c.answer.ids for c in more.candidates]
    assert ids[:8] == [c.answer.ids for c in few.candidates]


def needle(x):
    """Shares of a rare answer that are there."""
    return sum(a == b for a, b in zip(x, (3, 1, 0, 2, 3, 1), strict=True)) / 6


@pytest.mark.parametrize("backup", ["soft", "mean", "max"])
def test_the_search_finds_more_than_as_many_forwards_of_best_of(backup):
    trees = [
        search(Tree(400, 6, backup=backup, lam=20.0), MODEL, needle, seed=s, most=240)
        for s in range(60)
    ]
    plain = [search(BestOf(40), MODEL, needle, seed=s) for s in range(60)]
    assert all(table.forwards <= 240 for table in trees)
    assert mean(t.best.score for t in trees) > mean(t.best.score for t in plain) + 0.04


def test_a_search_stops_at_its_target():
    table = search(Tree(400, 3), MODEL, reward, seed=3, target=1.5)
    assert table.best.score >= 1.5
    assert len(table.candidates) < 40


def test_scores_that_failed_do_not_stop_it():
    table = search(Tree(16, 3), MODEL, lambda x: float("-inf"), seed=3)
    assert len(table.candidates) == 16


def test_a_tree_without_points_is_a_star():
    table = search(Tree(12, 1, widening=1.0), MODEL, reward, seed=3)
    assert table.forwards == 12 * 6


def test_rules_as_moves_are_tried_once_each():
    table = search(UnMaskFork(200, 3), MODEL, needle, rule=Rule("left"))
    seen = [c.answer.ids for c in table.candidates]
    assert len(set(seen)) == len(seen)
    assert len(seen) < 200
    starts = [(node.rule, node.parent) for node in table.nodes]
    assert len(starts) <= (1 + 4 + 16) * 4


def test_one_rule_is_one_answer():
    table = search(UnMaskFork(8, 3, rules=("topk",)), MODEL, needle)
    assert len(table.candidates) == 1
    assert table.forwards == 6


@pytest.mark.parametrize(
    ("wrong", "param"),
    [({"rollouts": 0}, "rollouts"), ({"width": 0.5}, "width"), ({"lam": 0.0}, "lam")],
)
def test_wrong_arguments(wrong, param):
    with pytest.raises(InvalidRequest) as caught:
        Tree(**wrong)
    assert caught.value.param == param


def test_wrong_rules():
    with pytest.raises(InvalidRequest, match="rules"):
        UnMaskFork(rules=())
    with pytest.raises(InvalidRequest, match="did you mean 'topk'"):
        UnMaskFork(rules=("topc",))
    with pytest.raises(InvalidRequest, match="orders"):
        Order(orders=())
