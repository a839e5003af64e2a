"""Functions that the driving thread runs between two steps, and a driver that dies."""

import asyncio
import threading

import pytest

from dlm import AsyncEngine, EngineError
from tests.engine.test_async import OPTIONS, idle, new_engine, prompt

LONG = {**OPTIONS, "max_new_tokens": 96, "unmask": "topk", "blocks": "fixed(16)"}


def served_by(work, engine, **options):
    """The result of a coroutine function that gets an `AsyncEngine`."""

    async def main():
        async with AsyncEngine(engine, **options) as served:
            return await asyncio.wait_for(work(served), 300)

    return asyncio.run(main())


async def live(engine):
    while not engine.live:
        await asyncio.sleep(0.001)


def test_a_call_runs_in_the_driving_thread_with_the_lock_though_nothing_is_decoded():
    engine = new_engine()

    def look(left, right):
        taken = []
        other = threading.Thread(target=lambda: taken.append(engine.lock.acquire(blocking=False)))
        other.start()
        other.join()
        return threading.current_thread().name, taken, left + right

    assert served_by(lambda served: served.call(look, 2, 3), engine) == ("dlm", [False], 5)


def test_calls_run_in_order_between_the_steps_of_what_is_decoded():
    engine, seen = new_engine(), []

    def note(number):
        seen.append((number, engine.live))
        return number

    async def work(served):
        handle = served.submit(prompt(3), **LONG)
        await live(engine)
        found = await asyncio.gather(*(served.call(note, number) for number in range(20)))
        return found, handle.done, (await handle).ids

    found, early, ids = served_by(work, engine)
    assert found == list(range(20))
    assert seen == [(number, 1) for number in range(20)]
    assert not early
    assert ids == new_engine().generate(prompt(3), **LONG).ids
    assert idle(engine)


def test_a_step_comes_between_calls_that_never_end():
    engine = new_engine()

    async def work(served):
        async def chain():
            while True:
                await served.call(int)

        chains = [asyncio.create_task(chain()) for _ in range(4)]
        answer = await served.generate(prompt(3), **LONG)
        for task in chains:
            task.cancel()
        return answer.ids

    assert served_by(work, engine) == new_engine().generate(prompt(3), **LONG).ids


@pytest.mark.parametrize("error", [ValueError("wrong"), StopIteration(), KeyError(1)])
def test_the_error_of_a_function_is_raised_at_the_await_and_nowhere_else(error):
    engine = new_engine()

    def fails():
        raise error

    async def work(served):
        handle = served.submit(prompt(1), **LONG)
        with pytest.raises(RuntimeError if isinstance(error, StopIteration) else type(error)):
            await served.call(fails)
        assert served.alive
        return (await handle).ids, await served.call(str, 7)

    assert served_by(work, engine)[1] == "7"
    assert idle(engine)


def test_a_cancelled_call_that_has_not_begun_never_runs():
    engine, ran = new_engine(), []
    begun, go_on = threading.Event(), threading.Event()

    def blocks():
        begun.set()
        assert go_on.wait(60)
        ran.append("first")

    async def work(served):
        first = asyncio.create_task(served.call(blocks))
        await asyncio.to_thread(begun.wait, 60)
        second = asyncio.create_task(served.call(ran.append, "second"))
        third = asyncio.create_task(served.call(ran.append, "third"))
        await asyncio.sleep(0.001)
        first.cancel()  # it runs: its end is not waited for
        second.cancel()
        for task in (first, second):
            with pytest.raises(asyncio.CancelledError):
                await task
        go_on.set()
        await third
        assert not served._listeners

    served_by(work, engine)
    assert ran == ["first", "third"]


def test_close_refuses_calls_that_wait_and_those_that_come_later():
    engine, ran = new_engine(), []
    begun, go_on = threading.Event(), threading.Event()

    def blocks():
        begun.set()
        return go_on.wait(60)

    async def main():
        served = AsyncEngine(engine)
        first = asyncio.create_task(served.call(blocks))
        await asyncio.to_thread(begun.wait, 60)
        waits = [asyncio.create_task(served.call(ran.append, n)) for n in range(3)]
        await asyncio.sleep(0.001)
        closing = asyncio.create_task(served.close())
        while not served._closed:
            await asyncio.sleep(0.001)
        go_on.set()
        await closing
        assert await first
        found = await asyncio.gather(*waits, return_exceptions=True)
        assert [type(error) for error in found] == [RuntimeError] * 3
        with pytest.raises(RuntimeError, match="the engine is closed"):
            await served.call(int)
        assert served.alive

    asyncio.run(main())
    assert not ran


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("fault", [SystemExit("gone"), MemoryError("no more")])
def test_whoever_waits_when_the_driver_dies_gets_an_error(monkeypatch, fault):
    """The step fails, and so does what ends its rows."""
    engine, steps = new_engine(), []
    step, end_all = engine.scheduler.step, engine.scheduler.end_all

    def faulty(*error):
        steps.append(1)
        if len(steps) >= 4:
            raise fault
        (end_all if error else step)(*error)

    monkeypatch.setattr(engine.scheduler, "step", faulty)
    monkeypatch.setattr(engine.scheduler, "end_all", faulty)

    async def events(served):
        return [event async for event in served.stream(prompt(2), **LONG)]

    async def work(served):
        handle = served.submit(prompt(1), **LONG)
        waits = [handle.result(), events(served), served.generate(prompt(3), **LONG)]
        news = threading.Event()
        waits.append(served._until(news.is_set))
        found = await asyncio.gather(*waits, return_exceptions=True)
        assert [type(error) for error in found] == [EngineError] * 4
        assert all(type(fault).__name__ in str(error) for error in found)
        assert not served.alive
        for later in (served.call(int), served.generate(prompt(1), **LONG), handle.result()):
            with pytest.raises(EngineError, match="the driving thread has died of"):
                await later
        with pytest.raises(EngineError, match="the driving thread has died of"):
            served.submit(prompt(1), **LONG)
        await handle.abort()
        await served.close()
        assert not served.alive

    served_by(work, engine)


def test_a_wait_that_has_no_end_ends_with_the_engine():
    async def main():
        served = AsyncEngine(new_engine())
        wait = asyncio.create_task(served._until(lambda: False))
        await asyncio.sleep(0.001)
        await served.close()
        with pytest.raises(RuntimeError, match="the engine is closed"):
            await wait

    asyncio.run(main())
