"""Searches with hardly a budget, and policies that do no work: an answer, or a word about them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import pytest

import dlm
from dlm.errors import RuleError, Unavailable, culprit_of
from dlm.search import Advance, Complete, Context, Drop, Point, Run, Score, Start, Verdict
from dlm.search.policies.wrappers import Cascade
from tests.search.searches import OPTIONS, PROMPT, Aside, Remainder, new_engine, require_empty


@pytest.mark.parametrize("seconds", [1e-300, 1e-6])
@pytest.mark.parametrize("spec", ["best_of(4)", "smc(2)", "neighbours", "cascade"])
def test_the_first_step_is_taken_before_time_is_looked_at(spec: str, seconds: float) -> None:
    engine, _ = new_engine()
    asked = {"verifier": Remainder(100), "budget": {"seconds": seconds}, **OPTIONS}
    found = engine.search(PROMPT, spec, **asked)
    assert found.reason == "budget"
    assert found.costs.launches == 1
    assert found.best.ids
    require_empty(engine)


def test_the_first_step_is_taken_by_asynchronous_searches() -> None:
    async def search() -> dlm.SearchResult:
        engine = dlm.AsyncEngine(new_engine()[0])
        try:
            asked = {"budget": {"seconds": 1e-6}, "verifier": Remainder(100), **OPTIONS}
            return await engine.search(PROMPT, "best_of(4)", **asked)
        finally:
            await engine.close()

    found = asyncio.run(search())
    assert (found.reason, bool(found.best.ids)) == ("budget", True)


@pytest.mark.parametrize("spec", ["best_of(4)", "smc(3)", "beam", "neighbours"])
def test_an_answer_at_the_end_of_a_budget_is_judged_where_that_is_free(spec: str) -> None:
    engine, _ = new_engine()
    verifier, budget = Remainder(100), {"nfe": 2}
    found = engine.search(PROMPT, spec, verifier=verifier, budget=budget, **OPTIONS)
    assert (found.reason, len(found.candidates)) == ("budget", 1)
    assert found.score == Remainder(100).score([found.best], None)[0].score
    assert found.costs.verifier_calls >= 1
    assert found.costs.nfe <= 2
    assert found.curve[-1].score == found.score
    require_empty(engine)


@dataclass(frozen=True)
class Dear(dlm.Verifier):
    """A verifier that takes a forward."""

    @property
    def cost(self) -> float:
        return 1.0

    def score(self, answers: Sequence[Any], question: Any) -> list[Verdict]:
        question.spent.add(len(answers), len(answers))
        return [Verdict(0.5)] * len(answers)


@pytest.mark.parametrize("verifier", [Dear(), Aside(100)])
def test_it_is_not_judged_where_that_takes_forwards_or_time(verifier: dlm.Verifier) -> None:
    engine, _ = new_engine()
    found = engine.search(PROMPT, "best_of(4)", verifier=verifier, budget={"nfe": 2}, **OPTIONS)
    assert isnan(found.score)
    assert found.costs.verifier_calls == 0
    assert found.costs.nfe <= 2


@pytest.mark.parametrize("spec", ["vote(4)", "hex"])
def test_votes_count_the_answer_at_the_end_of_a_budget(spec: str) -> None:
    found = dlm.load(device="cpu").search(
        "Countdown: use 2 10 3 to make 9.",
        spec,
        budget={"nfe": 3},
        temperature=1.0,
        max_new_tokens=24,
    )
    assert (found.reason, found.score) == ("budget", 1.0)


@dataclass(frozen=True, slots=True)
class Idle(dlm.Policy):
    """A policy whose `run` gives something else than a generator."""

    given: Any = None

    def run(self, search: Context) -> Run:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "given", [None, [], 3, iter([]), [Start(0)]], ids=lambda it: type(it).__name__
)
def test_a_run_that_is_no_generator_is_told(given: Any) -> None:
    engine, _ = new_engine()
    with pytest.raises(RuleError, match="`run` must be a generator") as caught:
        engine.search(PROMPT, Idle(given), **OPTIONS)
    culprit = culprit_of(caught.value)
    assert culprit is not None
    assert culprit.name == "Idle"
    require_empty(engine)


def test_a_run_of_a_stage_that_is_no_generator_is_told() -> None:
    engine, _ = new_engine()
    with pytest.raises(RuleError, match=r"Idle.*`run` must be a generator"):
        engine.search(PROMPT, Cascade((Idle(), "neighbours")), verifier=Remainder(), **OPTIONS)
    require_empty(engine)


def test_an_exception_of_a_run_that_is_no_generator_is_its_own() -> None:
    engine, _ = new_engine()
    with pytest.raises(KeyError, match="mine") as caught:
        engine.search(PROMPT, Idle(KeyError("mine")), **OPTIONS)
    culprit = culprit_of(caught.value)
    assert culprit is not None
    assert culprit.name == "Idle"
    require_empty(engine)


def test_a_policy_without_a_run_of_its_own_is_told() -> None:
    @dataclass(frozen=True, slots=True)
    class Bare(dlm.Policy):
        """Nothing."""

    with pytest.raises(RuleError, match=r"Bare.*must be a generator"):
        new_engine()[0].search(PROMPT, Bare(), **OPTIONS)


@dataclass(frozen=True, slots=True)
class Ends(dlm.Policy):
    """A policy that ends early.

    after: the last thing that it does
    """

    after: str

    def run(self, search: Context) -> Run:
        if self.after == "nothing":
            return
        nodes = yield [Start(0), Start(1)]
        if self.after == "dropping":
            yield [Advance(node, Point(steps=1)) for node in nodes]
            yield [Drop(node) for node in nodes]
        if self.after == "guessing":
            guesses = yield [Complete(node) for node in nodes]
            yield [Score(nodes, guesses, keep=False)]
        if self.after == "decoding":
            yield [Advance(node) for node in nodes]


@pytest.mark.parametrize("after", ["nothing", "starting", "guessing", "dropping"])
def test_a_policy_that_ends_without_an_answer_is_told(after: str) -> None:
    engine, _ = new_engine()
    with pytest.raises(RuleError, match=r"Ends .*`run` has ended without an answer"):
        engine.search(PROMPT, Ends(after), verifier=Remainder(100), **OPTIONS)
    require_empty(engine)


def test_a_policy_that_judges_nothing_has_an_answer() -> None:
    engine, _ = new_engine()
    found = engine.search(PROMPT, Ends("decoding"), verifier=Remainder(100), **OPTIONS)
    assert (found.reason, len(found.candidates)) == ("done", 1)
    assert found.score == Remainder(100).score([found.best], None)[0].score
    require_empty(engine)


def test_a_weighed_vote_that_nobody_could_weigh_is_not_judged() -> None:
    found = dlm.load(device="cpu").search(
        "Countdown: use 2 10 3 to make 9.",
        "vote(4, weigh=True)",
        verifier=Dear(),
        budget={"nfe": 3},
        temperature=1.0,
        max_new_tokens=24,
    )
    assert found.reason == "budget"
    assert isnan(found.score)


def test_a_tree_tells_the_forwards_of_rows_that_a_budget_cuts() -> None:
    engine, _ = new_engine()
    found = engine.search(PROMPT, "best_of(4)", budget={"nfe": 6}, **OPTIONS)
    cut = [node.work[-1] for node in found.tree if node.nfe]
    assert cut
    assert all(verb == "advance" and nfe for verb, nfe in cut)


def test_a_search_that_is_aborted_before_its_first_step_says_so() -> None:
    engine, _ = new_engine()
    job = engine.prepare_search(PROMPT, dlm.SearchOptions("best_of(4)"), OPTIONS)
    job.abort()
    with pytest.raises(Unavailable, match="aborted before its first step"):
        job.result()
