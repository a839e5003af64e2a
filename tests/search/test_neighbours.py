"""`neighbours`: parts of an answer are opened and decoded anew."""

from dataclasses import dataclass
from itertools import pairwise

import pytest

from dlm.errors import InvalidRequest
from dlm.search.policies.neighbours import Neighbours
from dlm.search.policies.sampling import BestOf
from dlm.search.searcher import parse_policy
from dlm.search.verifier import Verdict, Verifier
from tests.engine.test_nodes import new_engine
from tests.search.joint import LENGTH, Tabular, answers
from tests.search.tabular import search

MODEL = Tabular(2)


def matches(needle):
    """The share of positions that agree with an answer that is sought."""
    return lambda x: sum(a == b for a, b in zip(x, needle, strict=True)) / LENGTH


def forwards_until_found(policy, seed, needle):
    """Forwards until an answer is found, at most 600."""
    found = search(policy, MODEL, matches(needle), seed, target=1.0, most=600)
    return found.forwards


def test_it_finds_a_rare_answer_sooner_than_independent_answers_do():
    needle = sorted(answers(), key=MODEL.joint.__getitem__)[-50]
    near = Neighbours(rounds=500, fraction=0.5, patience=0)
    far = BestOf(500, width=1)
    spent = [
        sum(forwards_until_found(policy, seed, needle) for seed in range(12))
        for policy in (near, far)
    ]
    assert spent[0] < spent[1] / 2


def test_a_worse_neighbour_is_not_the_next_pivot():
    found = search(
        Neighbours(rounds=40, fraction=0.5, patience=0), MODEL, matches((0,) * LENGTH), 5
    )
    pivot = found.candidates[0]
    for candidate in found.candidates[1:]:
        assert found.nodes[candidate.node].parent.number == pivot.node
        if candidate.score >= pivot.score:
            pivot = candidate
    assert found.answer.score == max(one.score for one in found.candidates)


def test_the_best_of_several_neighbours_is_the_next_pivot():
    found = search(
        Neighbours(width=4, rounds=6, fraction=0.5, patience=0), MODEL, matches((1,) * LENGTH), 1
    )
    pivot = found.candidates[0]
    for first in range(1, len(found.candidates), 4):
        fresh = found.candidates[first : first + 4]
        assert {found.nodes[one.node].parent.number for one in fresh} == {pivot.node}
        best = max(fresh, key=lambda one: one.score)
        pivot = best if best.score >= pivot.score else pivot
    assert found.forwards == LENGTH + 24 * LENGTH // 2


def test_more_rounds_go_on_from_fewer():
    few, more = (
        search(Neighbours(rounds=n, patience=2), MODEL, matches((2,) * LENGTH), 7).candidates
        for n in (5, 15)
    )
    assert [one.answer.ids for one in few] == [one.answer.ids for one in more][: len(few)]
    assert len(more) > len(few)


def test_it_starts_anew_when_nothing_gets_better():
    def rejecting(x):
        return 0.0

    found = search(Neighbours(rounds=7, patience=3), MODEL, rejecting, 0)
    assert [node.edge for node in found.nodes if node.parent is None] == [0, 1, 2]


def test_the_opened_share_grows_while_nothing_gets_better():
    found = search(Neighbours(rounds=4, fraction=0.3, adapt=1.5), MODEL, lambda x: 0.0, 0)
    costs = [one.nfe for one in found.candidates]
    opened = [after - before for before, after in pairwise(costs)]
    assert opened == [2, 3, 5, 6]


def test_a_draft_that_settles_the_search_ends_it():
    needle = max(MODEL.joint, key=MODEL.joint.__getitem__)
    policy = Neighbours(rounds=200, fraction=1.0)
    watched = [forwards_until_found(policy, seed, needle) for seed in range(12)]
    assert any(count % LENGTH for count in watched)  # in the middle of an answer


@pytest.mark.parametrize(
    "spec",
    ["neighbours(width=0)", "neighbours(fraction=0)", "neighbours(adapt=0.5)"],
)
def test_wrong_arguments_are_refused(spec):
    with pytest.raises(InvalidRequest, match="must be"):
        parse_policy(spec)


def test_wrong_selectors_are_refused_with_the_choices():
    with pytest.raises(InvalidRequest, match="disagree"):
        parse_policy("neighbours(select='best')")


@dataclass(frozen=True, slots=True)
class Remainder(Verifier):
    """A score up to 30 that no decoding rule knows of."""

    def score(self, answers, question):
        return [Verdict(float(sum(answer.ids) % 31)) for answer in answers]


OPTIONS = {"max_new_tokens": 16, "temperature": 1.0, "unmask": "threshold(0.5)", "seed": 3}


def searched(policy, *, max_rows=16, target=30.0, attention="full", **more):
    """A search on a model of random weights, with the forwards that a spy has counted."""
    changes = {"attention": attention, "block_length": 8} if attention != "full" else {}
    engine, spy = new_engine(changes, max_rows=max_rows)
    found = engine.search(
        [7, 3, 9, 21, 14], policy, verifier=Remainder(), target=target, **(OPTIONS | more)
    )
    assert not engine.live
    engine.scheduler.check_integrity()
    return found, spy


@pytest.mark.parametrize("attention", ["full", "block_causal"])
@pytest.mark.parametrize(
    "select", ["random", "lowest", "span", "disagree", "blamed", "pll", "drop"]
)
def test_a_search_on_an_engine_is_billed_for_each_forward(select, attention):
    policy = Neighbours(rounds=6, fraction=0.4, select=select)
    found, spy = searched(policy, max_rows=1, attention=attention, target=99.0)
    read = sum(verb.startswith("reread") for node in found.tree for verb, _ in node.work)
    assert found.costs.nfe == spy.forwards + read
    assert (read > 0) == (select in ("pll", "drop"))
    assert found.score == max(one.score for one in found.candidates)


def test_answers_do_not_depend_on_the_batch():
    alone, together = (
        searched(Neighbours(starts=2, width=3, rounds=5, patience=2), max_rows=rows)[0]
        for rows in (1, 16)
    )
    assert alone.best.ids == together.best.ids
    assert sorted(one.answer.ids for one in alone.candidates) == sorted(
        one.answer.ids for one in together.candidates
    )


def test_a_bound_on_forwards_is_kept():
    for most in (5, 17, 40):
        found, _ = searched(Neighbours(rounds=99, select="drop"), target=99.0, budget={"nfe": most})
        assert found.costs.nfe <= most


def test_all_but_what_is_opened_stays():
    found, _ = searched(Neighbours(rounds=8, fraction=0.25), target=99.0)
    by_node = {one.node: one for one in found.candidates}
    for one in found.candidates[1:]:
        parent = by_node[found.tree[one.node].parent]
        (opened,) = (v for v, _ in found.tree[one.node].work if v.startswith("remask"))
        pairs = zip(one.answer.canvas, parent.answer.canvas, strict=True)
        assert sum(a != b for a, b in pairs) <= int(opened.split()[1])
