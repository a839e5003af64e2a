"""Beams, orders, looks ahead: policies on a known joint."""

from math import isclose, log, nan
from statistics import mean

import pytest

from dlm.errors import InvalidRequest
from dlm.search.policies.beam import Beam
from dlm.search.policies.canvases import canvas_of
from dlm.search.policies.lookum import LookUM
from dlm.search.policies.lopa import LoPA
from dlm.search.policies.order import Order
from dlm.search.policies.sampling import BestOf
from dlm.search.work import Advance, Point, Start
from tests.search.joint import Tabular
from tests.search.tabular import Rule, Table, search

MODEL = Tabular()


def needle(x):
    """Shares of a rare answer that are there."""
    return sum(a == b for a, b in zip(x, (3, 1, 0, 2, 3, 1), strict=True)) / 6


def unknown(_):
    """No verifier."""
    return nan


def likelihood(answer):
    return log(MODEL.joint[answer.answer.ids])


def test_a_beam_costs_its_rows_and_their_look_ahead():
    table = search(Beam(2, 2, 3), MODEL, needle, seed=1)
    assert table.forwards == 4 * 6 + 2 * 4
    assert search(Beam(2, 2, 3, lookahead=0), MODEL, needle, seed=1).forwards == 4 * 6


def test_a_beam_finds_more_than_as_many_forwards_of_best_of():
    policy = Beam(4, 4, 6, lookahead=0)
    beams = [search(policy, MODEL, needle, seed=s) for s in range(60)]
    plain = [search(BestOf(16), MODEL, needle, seed=s) for s in range(60)]
    assert all(table.forwards <= 16 * 6 for table in beams)
    assert mean(t.best.score for t in beams) > mean(t.best.score for t in plain) + 0.04


def test_guesses_are_answers_where_they_are_asked_for():
    plain = search(Beam(2, 4, 6, lookahead=0), MODEL, needle, seed=8)
    guesses = search(Beam(2, 4, 6, lookahead=0, guesses=True), MODEL, needle, seed=8)
    assert guesses.forwards == plain.forwards
    assert len(guesses.candidates) > len(plain.candidates)
    assert guesses.best.score >= plain.best.score


def test_a_beam_of_one_is_a_plain_sample():
    beam = search(Beam(1, 1, 3, lookahead=0), MODEL, needle, seed=7)
    assert beam.forwards == 6
    assert beam.best.answer.ids == search(BestOf(1), MODEL, needle, seed=7).best.answer.ids


def test_equal_canvases_take_one_place():
    beam = search(Beam(3, 2, 3), MODEL, lambda x: 1.0, seed=2, rule=Rule(temperature=0.0))
    ended = [node for node in beam.nodes if node.done and node.edge >= 0]
    assert len({node.ids for node in ended}) == 1


def test_forks_open_their_least_likely_tokens():
    plain = search(Beam(2, 3, 3), MODEL, needle, seed=3)
    table = search(Beam(2, 3, 3, remask=0.5), MODEL, needle, seed=3)
    assert table.forwards > plain.forwards
    assert all(None not in c.answer.ids for c in table.candidates)


def test_siblings_leave_room_for_others():
    table = search(Beam(2, 4, 3, siblings=1), MODEL, needle, seed=3)
    ended = [node for node in table.nodes if node.done and not node.dropped and node.edge >= 0]
    assert ended


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"width": 0}, "width"),
        ({"remask": 2.0}, "remask"),
        ({"remask": 0.5, "lookahead": 0}, "lookahead"),
    ],
)
def test_wrong_arguments_of_a_beam(wrong, param):
    with pytest.raises(InvalidRequest) as caught:
        Beam(**wrong)
    assert caught.value.param == param


def test_orders_follow_the_likeliest_way():
    table = search(Order(2), MODEL, unknown, seed=3)
    best = max(table.candidates, key=likelihood)
    assert isclose(likelihood(table.answer), likelihood(best))
    assert {node.rule.order for node in table.nodes} == {"confident", "left", "random"}


def test_orders_find_likelier_answers_than_as_many_samples():
    policy, found, plain = Order(2, segments=3), [], []
    for seed in range(60):
        found.append(likelihood(search(policy, MODEL, unknown, seed=seed).answer))
        table = search(BestOf(6), MODEL, unknown, seed=seed)
        plain.append(max(map(likelihood, table.candidates)))
    assert mean(found) > mean(plain)


def test_a_verifier_decides_between_orders():
    table = search(Order(2, estimate="score"), MODEL, needle, seed=3)
    assert table.answer.score == max(c.score for c in table.candidates)


def test_one_order_is_a_plain_sample():
    assert search(Order(1, ('topk(score="left")',)), MODEL, unknown, seed=3).forwards == 6


def test_lookum_keeps_all_its_rows():
    table = search(LookUM(3), MODEL, needle, seed=3)
    assert len(table.candidates) == 3
    assert table.forwards == 18


def test_lookum_follows_ways_with_little_doubt():
    def likelihoods(lam):
        tables = [search(LookUM(4, lam), MODEL, unknown, seed=s) for s in range(150)]
        return mean(likelihood(c) for table in tables for c in table.candidates)

    assert likelihoods(5.0) > likelihoods(0.0) + 0.5


def test_lopa_takes_fewer_steps():
    greedy = Rule("confident", 0.0)
    plain = search(LoPA(0), MODEL, unknown, rule=greedy)
    assert plain.forwards == 6
    table = search(LoPA(3), MODEL, unknown, rule=greedy)
    steps = 1 + sum(node.edge >= 0 for node in table.nodes[1:]) / 3
    assert steps < 5
    again = search(LoPA(3), MODEL, unknown, seed=9, rule=greedy)
    assert table.answer.answer.ids == again.answer.answer.ids


def test_a_canvas_goes_on_as_a_start():
    table = Table(MODEL, needle, 3)
    node = table.begin(Start(0)).value
    assert canvas_of(node) == [None] * 6
    table.begin(Advance(node, Point(steps=4)))
    assert canvas_of(node)[4:] == [None, None]
    assert canvas_of(node, {node.open[1]: 2})[4:] == [None, 2]
    again = table.begin(Start(0, canvas=canvas_of(node))).value
    assert again.ids == node.ids
    assert again.open == node.open
