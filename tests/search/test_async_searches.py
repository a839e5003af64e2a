"""Searches on `AsyncEngine`: many at once, cancelled ones, verdicts from other threads."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import dlm
from dlm.engine.engine import Engine
from tests.search.searches import (
    OPTIONS,
    PROMPT,
    Aside,
    Remainder,
    new_engine,
    require_empty,
    seen,
    specs,
)
from tests.search.test_ends_of_searches import Slow, Wrong


def test_many_searches_at_once_are_as_alone() -> None:
    kinds = [(spec, verifier) for spec in specs() for verifier in (Remainder(), Aside())][:16]
    prompts = [[*PROMPT, number % 5] for number in range(len(kinds))]
    asked = list(zip(prompts, kinds, strict=True))
    engine, _ = new_engine()
    alone = [engine.search(p, spec, verifier=v, **OPTIONS) for p, (spec, v) in asked]

    async def all_of_them() -> list[Any]:
        async with dlm.AsyncEngine(engine) as served:
            searches = [served.search(p, spec, verifier=v, **OPTIONS) for p, (spec, v) in asked]
            request = served.generate([4, 5], **OPTIONS)
            *found, answer = await asyncio.gather(*searches, request)
            assert answer.canvas == engine.generate([4, 5], **OPTIONS).canvas
            return found

    found = asyncio.run(all_of_them())
    assert [seen(one) for one in found] == [seen(one) for one in alone]
    require_empty(engine)


def test_cancelled_tasks_leave_nothing() -> None:
    engine, _ = new_engine()
    kinds = specs()

    async def cancel_all() -> None:
        async with dlm.AsyncEngine(engine) as served:
            for number in range(40):
                spec, verifier = (
                    kinds[number % len(kinds)],
                    (Remainder(100), Aside(100))[number % 2],
                )
                task = asyncio.create_task(
                    served.search([*PROMPT, number], spec, verifier=verifier, **OPTIONS)
                )
                await asyncio.sleep(0.001 * (number % 7))
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert (await served.generate(PROMPT, **OPTIONS)).ids
            require_empty(engine)

    asyncio.run(cancel_all())


def test_a_closed_engine_ends_its_searches() -> None:
    engine, _ = new_engine()

    async def close() -> Any:
        async with dlm.AsyncEngine(engine) as served:
            handle = await served.start_search(
                PROMPT, "best_of(100000)", verifier=Remainder(10**9), **OPTIONS
            )
            await asyncio.sleep(0.05)
        return handle

    handle = asyncio.run(close())
    assert handle.done
    require_empty(engine)


def test_errors_are_raised_where_the_search_is_awaited() -> None:
    engine, _ = new_engine()

    async def fail(served: dlm.AsyncEngine) -> None:
        with pytest.raises(KeyError, match="mine"):
            await served.search(PROMPT, Wrong("raises"), verifier=Remainder(100), **OPTIONS)
        with pytest.raises(ValueError, match="not so"):
            await served.search(PROMPT, "best_of(4)", on_improve=_fail, **OPTIONS)
        assert (await served.search(PROMPT, "best_of(2)", **OPTIONS)).best.ids

    _with(engine, fail)
    require_empty(engine)


def test_a_verifier_cannot_hold_a_search_beyond_its_seconds() -> None:
    engine, _ = new_engine()
    verifier = Slow()

    async def wait(served: dlm.AsyncEngine) -> Any:
        asked = {"verifier": verifier, "budget": {"seconds": 0.3}, **OPTIONS}
        return await asyncio.wait_for(served.search(PROMPT, "best_of(4)", **asked), 25)

    found = _with(engine, wait)
    verifier.gate.set()
    assert found.reason == "budget"
    require_empty(engine)


def test_rows_go_on_while_a_verdict_is_awaited() -> None:
    engine, _ = new_engine()
    verifier = Slow()

    async def look(served: dlm.AsyncEngine) -> None:
        options = {**OPTIONS, "unmask": "threshold(0.3)"}
        handle = await served.start_search(PROMPT, "seeds(6)", verifier=verifier, **options)
        for _ in range(2000):
            await asyncio.sleep(0.005)
            if not engine.live:
                break
        assert not engine.live, "all rows end though no verdict is there"
        verifier.gate.set()
        found = await handle
        assert len(found.candidates) == 6

    _with(engine, look)
    require_empty(engine)


def _fail(_: Any) -> None:
    raise ValueError("not so")


def _with(engine: Engine, program: Any) -> Any:
    async def run() -> Any:
        async with dlm.AsyncEngine(engine) as served:
            return await program(served)

    return asyncio.run(run())
