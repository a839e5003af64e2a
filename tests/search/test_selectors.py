"""Selectors: the positions that a neighbour opens."""

import math
from random import Random

import pytest

from dlm.errors import InvalidRequest
from dlm.search.policies.neighbours import Neighbours
from dlm.search.selectors import Pivot, chosen, parse_selector
from dlm.search.work import Advance, Score, Start
from tests.search.joint import LENGTH, Tabular
from tests.search.tabular import PROMPT, Table

PLACES = tuple(range(len(PROMPT), len(PROMPT) + LENGTH))


def pivot_of(table, edge=0):
    """An answer on the table that all its positions may be opened of."""

    def decoded():
        (node,) = yield [Start(edge)]
        yield [Advance(node)]
        ((candidate,),) = yield [Score([node])]
        return Pivot(node, candidate, PLACES, Random(3), table.candidates)

    return table.run(decoded())


def ranked(spec, pivot, count=3):
    return list(parse_selector(spec).rank(pivot, count))


@pytest.fixture
def table():
    return Table(Tabular(1), sum, seed=4)


@pytest.mark.parametrize("spec", ["random", "span", "lowest", "disagree", "blamed", "pll", "drop"])
def test_every_place_is_ranked_once(table, spec):
    assert sorted(ranked(spec, pivot_of(table))) == list(PLACES)


def test_the_least_sure_come_first(table):
    pivot = pivot_of(table)
    order = [pivot.node.logprobs[at] for at in ranked("lowest", pivot)]
    assert order == sorted(order)


def test_a_span_is_one_stretch(table):
    pivot = pivot_of(table)
    starts = set()
    for _ in range(40):
        first = ranked("span", pivot)[:3]
        assert first == list(range(first[0], first[0] + 3))
        starts.add(first[0])
    assert starts == set(PLACES[:-2])


def test_blamed_positions_come_first(table):
    pivot = pivot_of(table)
    object.__setattr__(pivot.candidate, "spans", ((4, 6), (90, 91)))
    orders = {tuple(ranked("blamed", pivot)) for _ in range(30)}
    assert {frozenset(order[:2]) for order in orders} == {frozenset({4, 5})}
    assert len(orders) > 5  # by chance within


def test_differences_from_the_best_other_answer_come_first(table):
    for edge in range(1, 6):
        pivot_of(table, edge)
    pivot = pivot_of(table, 6)
    others = [one for one in table.candidates if one.answer.canvas != pivot.node.ids]
    rival = max(others, key=lambda one: (one.score, one.number))
    differ = {at for at in PLACES if rival.answer.canvas[at] != pivot.node.ids[at]}
    assert set(ranked("disagree", pivot)[: len(differ)]) == differ


def test_pll_opens_what_the_others_make_unlikely(table):
    pivot = pivot_of(table)
    before = table.forwards
    order = table.run(chosen(table, parse_selector("pll(0.17)"), pivot, LENGTH))
    assert table.forwards - before == LENGTH  # one position a forward
    canvas, model = pivot.node.canvas, table.model

    def log_of(at):
        own = at - len(PROMPT)
        hole = (*canvas[:own], None, *canvas[own + 1 :])
        return math.log(model.probs(hole, own)[canvas[own]])

    assert order == sorted(PLACES, key=log_of)


def test_reading_again_keeps_to_the_budget(table):
    pivot = pivot_of(table)
    table.most = table.forwards + 2
    order = table.run(chosen(table, parse_selector("pll"), pivot, 4))
    assert table.forwards == table.most - 2
    assert order == ranked("lowest", pivot)[:4]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("lowset", "lowest"),
        ("tests.search.test_selectors:Own", "trusted code alone"),
        ("pll(rate=0)", "must be"),
        (3, "must be one of"),
        (Neighbours(), "is no selector"),
    ],
)
def test_what_is_no_selector_is_refused(spec, said):
    with pytest.raises(InvalidRequest, match=said):
        parse_selector(spec)
