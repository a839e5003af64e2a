"""Ends of searches: cancelled, out of time, failed. They leave nothing, and spoil nothing."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from dlm.engine.engine import Engine
from dlm.engine.searching import SearchOptions
from dlm.errors import InvalidRequest, RuleError, Unavailable, culprit_of
from dlm.search import Context, Policy, Verdict, Verifier
from dlm.search.policy import sample
from dlm.search.work import Advance, Branch, Drop, Point, Remask, Run, Score, Start
from tests.search.searches import (
    OPTIONS,
    PROMPT,
    Aside,
    Remainder,
    new_engine,
    require_empty,
    specs,
)


def verifying_threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("dlm-verify")]


def wait_until(fact: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.005)


def prepared(engine: Engine, spec: Any, verifier: Any = None, **given: Any) -> Any:
    return engine.prepare_search(PROMPT, SearchOptions(spec, verifier, **given), dict(OPTIONS))


def cancelled(engine: Engine, spec: str, verifier: Verifier, steps: int) -> weakref.ref[Any]:
    """A search that is ended after some steps."""
    job = prepared(engine, spec, verifier)
    list(zip(range(steps), engine.search_steps(job), strict=False))
    with engine.lock:
        job.abort()
    return weakref.ref(job)


def test_cancelled_searches_leave_neither_rows_nor_pages_nor_threads() -> None:
    engine, _ = new_engine()
    kinds, jobs = specs(), []
    for number in range(200):
        verifier = (Remainder(), Aside())[number % 2]
        jobs.append(cancelled(engine, kinds[number % len(kinds)], verifier, number % 9))
        require_empty(engine)
    wait_until(lambda: not verifying_threads())
    gc.collect()
    assert not any(one() for one in jobs)


@pytest.mark.parametrize("spec", specs())
def test_a_search_may_be_ended_at_any_step(spec: str) -> None:
    engine, _ = new_engine()
    steps = sum(1 for _ in engine.search_steps(prepared(engine, spec, Remainder())))
    for stop in range(0, steps, max(steps // 6, 1)):
        job = prepared(engine, spec, Remainder())
        way = engine.search_steps(job)
        for _ in range(stop):
            next(way)
        with engine.lock:
            job.abort()
        require_empty(engine)
        assert job.done
        if stop > 1:
            found = job.result()
            assert found.best.ids
            assert found.reason == "abort"


def test_beside_requests_all_is_as_alone() -> None:
    engine, _ = new_engine()
    alone = engine.search(PROMPT, "best_of(6)", verifier=Remainder(), **OPTIONS)
    answer = engine.generate([4, 5, 6], **OPTIONS)
    request = engine.submit([4, 5, 6], **OPTIONS)
    found = engine.search(PROMPT, "best_of(6)", verifier=Remainder(), **OPTIONS)
    assert [one.answer.canvas for one in found.candidates] == [
        one.answer.canvas for one in alone.candidates
    ]
    assert request.result().canvas == answer.canvas
    require_empty(engine)


@pytest.mark.parametrize("verifier", [Remainder(), Aside()])
def test_searches_of_several_threads_are_as_alone(verifier: Verifier) -> None:
    engine, _ = new_engine()
    kinds = [one for one in specs() if not one.startswith("gibbs")][:8]
    alone = [engine.search(PROMPT, spec, verifier=verifier, **OPTIONS) for spec in kinds]
    found: dict[int, Any] = {}

    def search(number: int) -> None:
        found[number] = engine.search(PROMPT, kinds[number], verifier=verifier, **OPTIONS)

    threads = [threading.Thread(target=search, args=(number,)) for number in range(len(kinds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number, one in enumerate(alone):
        assert found[number].best.canvas == one.best.canvas
        assert len(found[number].candidates) == len(one.candidates)
    require_empty(engine)


class Failing:
    """A decoder that fails from some call on."""

    def __init__(self, decoder: Any, calls: int) -> None:
        self.decoder, self.calls = decoder, calls

    def __call__(self, packed: Any, kv: Any) -> torch.Tensor:
        self.calls -= 1
        if self.calls < 0:
            raise MemoryError("no room for the logits")
        found: torch.Tensor = self.decoder(packed, kv)
        return found


@pytest.mark.parametrize("calls", [0, 1, 7, 30])
def test_the_error_of_a_row_is_that_of_the_search(calls: int) -> None:
    engine, _ = new_engine()
    engine.manager.model = Failing(engine.model, calls)
    with pytest.raises(MemoryError, match="no room for the logits"):
        engine.search(PROMPT, "tree(rollouts=20)", verifier=Remainder(100), **OPTIONS)
    require_empty(engine)


def test_a_pool_without_room_is_told() -> None:
    small, _ = new_engine("block_causal", kv_bytes=3 * _bytes_of_a_row())
    with pytest.raises(Unavailable):
        small.search(PROMPT, Holding(8), verifier=Remainder(), **OPTIONS)
    require_empty(small)
    found = small.search(PROMPT, "best_of(8, width=8)", verifier=Remainder(100), **OPTIONS)
    assert len(found.candidates) == 8, "rows wait for each other's pages"
    require_empty(small)


def _bytes_of_a_row() -> int:
    engine, _ = new_engine("block_causal")
    return engine.generate(PROMPT, **OPTIONS).stats.kv_bytes


@dataclass(frozen=True)
class Holding(Policy):
    """Rows that are all parked on their way."""

    n: int

    def run(self, search: Context) -> Run:
        nodes = yield [Start(edge) for edge in range(self.n)]
        yield [Advance(node, Point(steps=1)) for node in nodes]
        yield [Advance(node) for node in nodes]
        yield [Score(nodes)]


@dataclass(frozen=True)
class Wrong(Policy):
    """A policy with a fault.

    fault: its kind
    seen: what it did at its end
    """

    fault: str
    seen: list[str] = field(default_factory=list)

    def run(self, search: Context) -> Run:
        try:
            first, _ = (yield [sample(0), sample(1)])[0]
            (node,) = yield [Start(2)]
            yield [Advance(node, Point(steps=1))]
            yield from self._fail(node, first)
            yield [Advance(node)]
        finally:
            self.seen.append("closed")

    def _fail(self, node: Any, first: Any) -> Run:
        if self.fault == "raises":
            raise KeyError("mine")
        if self.fault == "inside":
            yield [self._inside(), Advance(node)]
        if self.fault == "no list":
            yield Advance(node)  # type: ignore[misc]
        if self.fault == "no item":
            yield ["advance"]  # type: ignore[list-item]
        if self.fault == "foreign node":
            yield [Advance(self)]  # type: ignore[arg-type]
        if self.fault == "dropped node":
            yield [Drop(node)]
            yield [Branch(node, 0)]
        if self.fault == "wrong position":
            yield [Remask(first, [0])]

    def _inside(self) -> Run:
        yield []
        raise KeyError("mine")


@pytest.mark.parametrize(
    ("fault", "error", "told"),
    [
        ("raises", KeyError, "mine"),
        ("inside", KeyError, "mine"),
        ("no list", RuleError, "lists of work items"),
        ("no item", RuleError, "got 'advance'"),
        ("foreign node", InvalidRequest, "nodes of its own"),
        ("dropped node", InvalidRequest, "was dropped"),
        ("wrong position", InvalidRequest, "committed"),
    ],
)
def test_faults_of_a_policy_are_told(fault: str, error: type[Exception], told: str) -> None:
    engine, _ = new_engine()
    other = engine.submit([4, 5], **OPTIONS)
    policy = Wrong(fault)
    with pytest.raises(error, match=told) as caught:
        engine.search(PROMPT, policy, verifier=Remainder(100), **OPTIONS)
    if error in (KeyError, RuleError):
        culprit = culprit_of(caught.value)
        assert culprit is not None
        assert culprit.name == "Wrong"
    assert policy.seen == ["closed"]
    assert other.result().finish_reason
    require_empty(engine)


@dataclass(frozen=True)
class Clinging(Policy):
    """A policy that does not end when it is told to."""

    def run(self, search: Context) -> Run:
        while True:
            try:
                yield [sample(0)]
            except GeneratorExit:
                yield [sample(1)]


def test_a_policy_that_does_not_end_is_told_and_leaves_nothing() -> None:
    engine, _ = new_engine()
    with pytest.raises(RuntimeError, match="GeneratorExit"):
        engine.search(PROMPT, Clinging(), budget={"nfe": 40}, verifier=Remainder(100), **OPTIONS)
    require_empty(engine)


@pytest.mark.parametrize("nfe", [3, 100])
@pytest.mark.parametrize("verifier", [Remainder(100), Aside(100)])
def test_errors_of_who_is_told_end_the_search(verifier: Verifier, nfe: int) -> None:
    engine, _ = new_engine()
    told = []

    def on_improve(point: Any) -> None:
        told.append(point)
        raise ValueError("not so")

    with pytest.raises(ValueError, match="not so"):
        engine.search(
            PROMPT,
            "best_of(8)",
            verifier=verifier,
            budget={"nfe": nfe},
            on_improve=on_improve,
            **OPTIONS,
        )
    assert len(told) == 1
    require_empty(engine)


def test_who_is_told_may_use_the_engine() -> None:
    engine, _ = new_engine()
    answers = []
    found = engine.search(
        PROMPT,
        "best_of(4)",
        verifier=Remainder(100),
        on_improve=lambda _: answers.append(engine.generate([4, 5], **OPTIONS)),
        **OPTIONS,
    )
    assert len(answers) == len(found.curve)
    assert {one.canvas for one in answers} == {engine.generate([4, 5], **OPTIONS).canvas}
    require_empty(engine)


@dataclass(frozen=True)
class Slow(Verifier):
    """A verifier that waits until it is let go."""

    gate: threading.Event = field(default_factory=threading.Event)
    blocks = True

    def score(self, answers: Sequence[Any], question: Any) -> list[Verdict]:
        self.gate.wait(30)
        return [Verdict(1.0)] * len(answers)


def test_a_verifier_cannot_hold_a_search_beyond_its_seconds() -> None:
    engine, _ = new_engine()
    verifier = Slow()
    begun = time.monotonic()
    found = engine.search(
        PROMPT, "best_of(4)", verifier=verifier, budget={"seconds": 0.3}, **OPTIONS
    )
    assert time.monotonic() - begun < 25
    assert found.reason == "budget"
    assert found.best.ids
    require_empty(engine)
    verifier.gate.set()
    wait_until(lambda: not verifying_threads())


def test_seconds_end_a_search_of_many_rows() -> None:
    engine, _ = new_engine()
    found = engine.search(
        PROMPT, "best_of(100000)", verifier=Remainder(10**9), budget={"seconds": 0.2}, **OPTIONS
    )
    assert found.reason == "budget"
    assert found.costs.seconds < 20
    require_empty(engine)
