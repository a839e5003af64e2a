"""The likeliest answers of a parked row, and the search over them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise, product
from math import fsum, log
from typing import Any

import pytest

import dlm
from dlm.core import Kind
from dlm.engine.guessing import likeliest
from dlm.engine.node import Node
from dlm.errors import InvalidRequest
from dlm.search import Question, Verdict
from dlm.search.policies.sampling import BestOf
from dlm.search.policies.shortlist import Shortlist
from dlm.search.work import Advance, Guess, Point, Score, Start
from tests.search.joint import Tabular
from tests.search.searches import OPTIONS, PROMPT, new_engine, require_empty
from tests.search.tabular import search

COUNTDOWN = "Countdown: use 2 10 3 to make 9."
PROMPTS = (
    "Countdown: use 5 2 20 to make 13.",
    "Countdown: use 4 2 2 to make 10.",
    "Countdown: use 15 5 13 5 to make 28.",
    "Countdown: use 2 19 9 to make 30.",
)
SAMPLER: dict[str, Any] = {"temperature": 1.0, "blocks": "fixed(8)", "max_new_tokens": 32}


@pytest.mark.parametrize("seed", range(20))
def test_combinations_come_once_and_the_likeliest_first(seed: int) -> None:
    rng = random.Random(seed)
    sizes = [rng.randrange(1, 5) for _ in range(rng.randrange(1, 6))]
    logs = [
        sorted((log(rng.random() or 1e-9) for _ in range(size)), reverse=True) for size in sizes
    ]
    found = list(likeliest(logs))
    assert sorted(found) == list(product(*map(range, sizes)))
    sums = [fsum(one[rank] for one, rank in zip(logs, ranks, strict=True)) for ranks in found]
    assert all(now >= after - 1e-9 for now, after in pairwise(sums))


def stepped(steps: int = 1, **more: Any) -> tuple[dlm.Engine, Node]:
    engine, _ = new_engine()
    options = {**OPTIONS, "unmask": "topk", "top_logprobs": 3, "max_new_tokens": 5, **more}
    node = engine.start(PROMPT, **options)
    if steps:
        engine.resume(node, steps=steps)
    return engine, node


def test_guesses_are_the_largest_products_of_the_probabilities_that_the_step_read() -> None:
    engine, node = stepped(2)
    drawn = engine.scheduler.draft(node._state)
    still = [at for at, kind in enumerate(node.kinds) if kind == Kind.MASK]
    ways = []
    for choice in product(*(drawn[at].top for at in still)):
        canvas = list(node.ids)
        for at, (token, _) in zip(still, choice, strict=True):
            canvas[at] = token
        ways.append((-fsum(log(p) for _, p in choice), tuple(canvas)))
    expected = [canvas for _, canvas in sorted(ways)]
    found = engine.guesses(node, 12)
    assert [one.canvas for one in found] == expected[:12]
    assert {one.finish_reason for one in found} == {"length"}
    assert node.nfe == 2, "a guess takes no forward"
    logs = [log(dict(drawn[at].top)[found[0].canvas[at]]) for at in still]
    first = len(PROMPT)
    assert [found[0].logprobs[at - first] for at in still] == pytest.approx(logs)


def test_guesses_leave_out_beginnings() -> None:
    engine, node = stepped()
    every = [one.ids for one in engine.guesses(node, 60)]
    without = {every[0][:2], every[5]}
    kept = [ids for ids in every if ids[:2] not in without and ids not in without]
    found = [one.ids for one in engine.guesses(node, 30, without)]
    assert found == kept[: len(found)]
    assert len(found) >= 10
    assert engine.guesses(node, 3, {()}) == []


def test_guesses_differ_before_their_end_ids() -> None:
    engine = dlm.load("tiny", device="cpu")
    node = engine.start(COUNTDOWN, top_logprobs=8, **SAMPLER)
    engine.resume(node, open_ratio=0.5)
    found = engine.guesses(node, 40)
    assert len({one.ids for one in found}) == len(found)


def test_a_row_without_a_step_or_at_its_end_has_one_answer() -> None:
    engine, node = stepped(0)
    assert [one.ids for one in engine.guesses(node, 4)] == [()]
    engine.resume(node)
    assert engine.guesses(node, 4) == [node.result()]


def test_rows_that_keep_no_ids_have_no_guesses() -> None:
    engine, node = stepped(top_logprobs=0)
    with pytest.raises(InvalidRequest, match=r"`top_logprobs`: must be at least 2 .*, got 0"):
        engine.guesses(node, 4)


def test_a_fork_has_the_guesses_of_its_parent_and_an_opened_row_none() -> None:
    engine, node = stepped()
    child = engine.fork(node, 7)
    assert [a.ids for a in engine.guesses(child, 9)] == [a.ids for a in engine.guesses(node, 9)]
    engine.reopen(node, [at for at, kind in enumerate(node.kinds) if kind == Kind.COMMITTED])
    assert [one.ids for one in engine.guesses(node, 9)] == [()]


def test_a_few_forwards_are_enough() -> None:
    engine, spent = dlm.load("tiny", device="cpu"), {"shortlist": 0.0, "best_of(32, width=1)": 0.0}
    for prompt in PROMPTS:
        for spec in spent:
            found = engine.search(prompt, spec, verifier="rules", seed=1, **SAMPLER)
            assert (found.score, found.reason) == (1.0, "target")
            spent[spec] += found.costs.nfe
    assert spent["shortlist"] < spent["best_of(32, width=1)"] / 2
    require_empty(engine)


def test_the_option_that_the_rows_need_is_not_seen_in_the_answer() -> None:
    engine = dlm.load("tiny", device="cpu")
    found = engine.search(COUNTDOWN, "shortlist", verifier="rules", **SAMPLER)
    assert found.best.top_logprobs == ()


def test_the_best_of_a_known_joint_is_found_in_fewer_forwards() -> None:
    """The reward counts the positions of a chain that hold, so that beginnings tell."""
    model, wanted = Tabular(), (3, 1, 0, 2, 2, 1)

    def reward(ids: Any) -> float:
        return float(sum(a == b for a, b in zip(ids, wanted, strict=True)))

    listed = search(Shortlist(guesses=256, likely=4), model, reward, target=6.0)
    drawn = search(BestOf(4000, width=1), model, reward, target=6.0)
    assert listed.best is not None
    assert listed.best.score == 6.0
    assert listed.forwards < drawn.forwards / 10


@pytest.mark.parametrize("verifier", [None, "pll", "majority", "confidence"])
def test_verifiers_that_cannot_judge_hundreds_of_guesses_are_refused(verifier: Any) -> None:
    engine = dlm.load("tiny", device="cpu")
    if verifier == "confidence":  # it takes no forwards
        engine.search(COUNTDOWN, "shortlist(rows=1)", verifier=verifier, **SAMPLER)
        return
    with pytest.raises(InvalidRequest, match=r"`verifier`: judges hundreds of guesses"):
        engine.search(COUNTDOWN, "shortlist", verifier=verifier, **SAMPLER)


@pytest.mark.parametrize(
    "wrong",
    ["rows=0", "guesses=0", "likely=1", "steps=0", "likely=True", "guesses=257", "likely=21"],
)
def test_wrong_arguments_are_refused(wrong: str) -> None:
    engine = dlm.load("tiny", device="cpu")
    with pytest.raises(InvalidRequest, match=wrong.split("=")[0]):
        engine.search(COUNTDOWN, f"shortlist({wrong})", verifier="rules", **SAMPLER)


@dataclass(frozen=True, slots=True)
class Kinds(dlm.Verifier):
    """The number of different ids."""

    def score(self, answers: Any, question: Question) -> Any:
        return [Verdict(float(len(set(answer.ids)))) for answer in answers]


@dataclass(frozen=True, slots=True)
class OneStep(dlm.Policy):
    """The best of seven guesses after one forward."""

    def run(self, search: Any) -> Any:
        (node,) = yield [Start(0, likely=4)]
        yield [Advance(node, Point(steps=1))]
        (answers,) = yield [Guess(node, 7)]
        (judged,) = yield [Score([node] * len(answers), answers)]
        return max(judged, key=lambda one: one.score)


def test_a_policy_may_ask_for_guesses_itself() -> None:
    engine, spy = new_engine()
    found = engine.search(PROMPT, OneStep(), verifier=Kinds(), **OPTIONS)
    assert len(found.candidates) == 7
    assert spy.calls == found.costs.nfe == 1
    require_empty(engine)
