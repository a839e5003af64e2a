"""The executor: its results depend on no batch, its bills are right, its budgets hold."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from dlm.search.names import POLICIES
from tests.search.searches import (
    OPTIONS,
    PROMPT,
    READ_TEXT,
    SMALL,
    Aside,
    Remainder,
    Spy,
    new_engine,
    require_empty,
    seen,
    specs,
)

CACHES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("full", {}),
    ("full", {"cache": "dual", "blocks": "fixed(8)"}),
    ("block_causal", {}),
)
LONG = {"max_new_tokens": 32}


def searched(
    spec: str, *, attention: str = "full", max_rows: int = 16, verifier: Any = None, **more: Any
) -> tuple[Any, Spy]:
    engine, spy = new_engine(attention, max_rows=max_rows)
    verifier = Remainder() if verifier is None else verifier
    found = engine.search(PROMPT, spec, verifier=verifier, **{**OPTIONS, **more})
    require_empty(engine)
    return found, spy


def test_there_is_a_small_search_for_every_name_that_is_tested() -> None:
    assert set(SMALL) <= set(POLICIES.names())
    assert set(READ_TEXT) <= set(POLICIES.names())


@pytest.mark.parametrize("attention", ["full", "block_causal"])
@pytest.mark.parametrize("spec", specs())
def test_the_batch_changes_nothing(spec: str, attention: str) -> None:
    """Each search on both models, with and without a budget, and in batches of both sizes."""
    budget = {"nfe": 45} if attention == "full" else None
    swapped = (specs().index(spec) + (attention == "full")) % 2
    rows, verifier = (3, Aside()) if swapped else (16, Remainder())
    asked = {"attention": attention, "budget": budget, "verifier": verifier}
    alone, together = (searched(spec, max_rows=n, **asked)[0] for n in (1, rows))
    assert seen(together) == seen(alone)


@pytest.mark.parametrize("spec", specs())
def test_bills_are_those_of_a_spy(spec: str) -> None:
    for attention, options in CACHES:
        found, spy = searched(spec, attention=attention, **options)
        costs = found.costs
        assert costs.token_forwards == spy.positions
        assert costs.launches == spy.calls
        assert costs.nfe == costs.row_forwards
        assert sum(one.nfe for one in found.tree) == costs.row_forwards
        if not options and attention == "full":
            assert costs.row_forwards == spy.rows


def test_first_forwards_of_rows_from_one_prompt_are_computed_once() -> None:
    found, spy = searched("seeds(6)", unmask="topk")
    assert (found.costs.shared_forwards, found.costs.row_forwards) == (5, 6 * 16 - 5)
    assert spy.rows == found.costs.row_forwards
    assert found.costs.launches == 16


def test_calls_are_counted_where_the_host_looks_seldom() -> None:
    engine, spy = new_engine(unroll=4)
    found = engine.search(PROMPT, "seeds(4)", **{**OPTIONS, "unmask": "topk"})
    assert found.costs.launches == 16 <= spy.calls, "a call may find that all rows have ended"
    assert found.costs.token_forwards == spy.positions


@pytest.mark.parametrize("spec", specs())
def test_no_budget_of_forwards_is_exceeded(spec: str) -> None:
    for nfe in (1, 9, 33, 70):
        found, spy = searched(spec, budget={"nfe": nfe}, target=100.0)
        assert found.costs.nfe <= nfe
        assert spy.rows == found.costs.row_forwards
        assert found.best.ids
        if found.reason == "budget":
            assert found.costs.row_forwards + found.costs.shared_forwards == nfe


@pytest.mark.parametrize("spec", specs())
def test_budgets_of_positions_are_exceeded_by_one_step(spec: str) -> None:
    width = len(PROMPT) + OPTIONS["max_new_tokens"]
    for most in (1, 700):
        found, spy = searched(spec, budget={"token_forwards": most}, target=100.0)
        assert found.costs.token_forwards < most + 16 * width
        assert spy.positions == found.costs.token_forwards
        assert found.best.ids


@pytest.mark.parametrize("rows", [1, 2, 16])
@pytest.mark.parametrize("policy", ["best_of", "seeds"])
def test_fewer_answers_are_the_first_of_more(policy: str, rows: int) -> None:
    few, more = (
        seen(searched(f"{policy}({n})", max_rows=rows, verifier=Remainder(10**6))[0])["candidates"]
        for n in (8, 16)
    )
    assert len(few) == 8
    assert more[:8] == few


def test_answers_are_the_choices_of_generate() -> None:
    engine, _ = new_engine()
    answers = engine.generate(PROMPT, n=6, **OPTIONS)
    found = engine.search(PROMPT, "seeds(6)", **OPTIONS)
    assert [one.answer.canvas for one in found.candidates] == [
        one.canvas for one in answers.choices
    ]
    assert found.best.canvas == answers.canvas
    assert [one.answer.stats.nfe for one in found.candidates] == [
        one.stats.nfe for one in answers.choices
    ]


def test_of_equal_answers_the_first_is_the_best_whichever_ends_first() -> None:
    overtaken = 0
    for seed in range(8):
        found, _ = searched("best_of(12, width=12)", verifier=Remainder(1), seed=seed)
        right = [one for one in found.candidates if one.score == 1]
        overtaken += min(one.number for one in right) < right[0].number
        assert found.best.canvas == right[0].answer.canvas
        assert found.curve[-1].candidate == right[0].number
    assert overtaken, "a later answer was judged sooner"


def test_a_search_stops_when_it_has_the_highest_score() -> None:
    found, _ = searched("best_of(64, width=1)", verifier=Remainder(1))
    assert found.reason == "target"
    assert [one.score for one in found.candidates][-1] == 1
    assert len(found.candidates) < 64
    assert all(one.score < 1 for one in found.candidates[:-1])


def python_calls(work: Callable[[], object]) -> int:
    """Calls of Python functions of dlm that some work takes."""
    count = 0

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        count += event == "call" and "/dlm/" in frame.f_code.co_filename

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(("budget", "most"), [(None, 1.3), ({"nfe": 10_000}, 1.5)])
def test_a_search_is_hardly_more_work_than_its_rows(budget: Any, most: float) -> None:
    engine, _ = new_engine()
    options = {**OPTIONS, "unmask": "topk", "max_new_tokens": 32}
    rows = python_calls(lambda: engine.generate(PROMPT, n=16, **options))
    search = python_calls(
        lambda: engine.search(PROMPT, "best_of(16, width=16)", budget=budget, **options)
    )
    assert search <= most * rows


def test_a_budget_lets_the_host_look_as_seldom_as_without_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = []
    for budget in (None, {"nfe": 10_000}):
        engine, spy = new_engine(unroll=8)
        runs: list[int] = []
        run = engine.manager.run

        def counted(*asked: Any, run: Any = run, runs: list[int] = runs) -> Any:
            runs.append(1)
            return run(*asked)

        monkeypatch.setattr(engine.manager, "run", counted)
        engine.search(PROMPT, "seeds(4)", budget=budget, **{**OPTIONS, "unmask": "topk"})
        looks.append((len(runs), spy.calls))
    assert looks[0] == looks[1]
    assert looks[0][0] < 8
