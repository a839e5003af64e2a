"""Several callers at once: threads, asyncio tasks, cancellation, and failing steps."""

import asyncio
import random
import threading
from dataclasses import dataclass

import pytest
import torch

from dlm import AsyncEngine, Engine, Guide
from dlm.core.canvas import HostCanvas
from dlm.errors import EngineError, RuleError
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

OPTIONS = {"max_new_tokens": 24, "stop": "none", "blocks": "fixed(8)"}


def new_engine(**options):
    spec = tiny_spec()
    return Engine(random_decoder(spec), info_of(spec), **options)


def prompt(seed):
    rng = random.Random(seed)
    return [rng.randrange(3, 60) for _ in range(rng.randint(1, 600))]


def config(seed):
    caches = ("none", "dual", "prefix")
    return {**OPTIONS, "cache": caches[seed % 3], "temperature": 0.7 * (seed % 2), "seed": seed}


def alone(seed):
    return new_engine().generate(prompt(seed), **config(seed)).ids


def idle(engine):
    engine.scheduler.check_integrity()
    return engine.kv.pages.in_use == 0 and engine.scheduler.live == 0


def test_threads_share_one_engine():
    engine = new_engine()
    found = {}

    def work(seed):
        found[seed] = engine.generate(prompt(seed), **config(seed)).ids

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {seed: alone(seed) for seed in range(12)}
    assert idle(engine)


def test_tasks_share_one_engine_and_get_what_they_get_alone():
    engine = new_engine()

    async def main():
        async with AsyncEngine(engine) as served:
            tasks = (served.generate(prompt(seed), **config(seed)) for seed in range(12))
            return await asyncio.gather(*tasks)

    results = asyncio.run(main())
    assert [r.ids for r in results] == [alone(seed) for seed in range(12)]
    assert idle(engine)


def test_an_async_stream_replays_to_the_result():
    from dlm import replay

    engine = new_engine()

    async def main():
        async with AsyncEngine(engine) as served:
            return [event async for event in served.stream(prompt(3), **config(3))]

    events = asyncio.run(main())
    assert events[-1].type == "done"
    canvas = replay(events)[0]
    assert tuple(canvas.ids[canvas.prompt :]) == alone(3)


def test_a_cancelled_task_frees_its_pages_and_leaves_the_others_alone():
    engine = new_engine()

    async def main():
        async with AsyncEngine(engine) as served:
            kept = asyncio.create_task(served.generate(prompt(1), **config(1)))
            long = {**config(2), "max_new_tokens": 800, "unmask": "topk"}
            lost = asyncio.create_task(served.generate(prompt(2), **long))
            while engine.scheduler.live < 2:
                await asyncio.sleep(0)
            lost.cancel()
            with pytest.raises(asyncio.CancelledError):
                await lost
            stream = served.stream(prompt(4), **config(4))
            async for event in stream:
                if event.type == "commit":
                    break
            await stream.aclose()
            return await kept

    assert asyncio.run(main()).ids == alone(1)
    assert idle(engine)


def test_a_step_that_fails_ends_its_requests_and_the_engine_goes_on():
    engine = new_engine()
    model, calls = engine.manager.model, []

    def broken(packed, kv):
        calls.append(packed)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return model(packed, kv)

    engine.manager.model = broken

    async def main():
        async with AsyncEngine(engine) as served:
            with pytest.raises(RuntimeError, match="out of memory"):
                await served.generate(prompt(5), **config(5))
            return await served.generate(prompt(6), **config(6))

    assert asyncio.run(main()).ids == alone(6)
    assert idle(engine)


def test_a_row_with_broken_logits_fails_alone():
    engine = new_engine()
    bad = engine.submit(prompt(7), **{**OPTIONS, "guide": Poison()})
    good = engine.submit(prompt(8), **config(8))
    assert good.result().ids == alone(8)
    with pytest.raises(RuleError, match=r"guide part Poison .*finite logits"):
        bad.result()
    assert idle(engine)


def test_requests_can_be_aborted_at_any_step():
    engine = new_engine()
    for steps in range(0, 24, 3):
        request = engine.submit(prompt(steps), **config(steps))
        for _ in range(steps):
            engine.step()
        request.abort()
        assert request.done
        assert idle(engine)
        assert request.result().finish_reason in ("abort", "length")


@dataclass(frozen=True)
class Poison(Guide):
    """A guide that spoils every logit."""

    def __call__(self, logits, frame, params):
        return torch.full_like(logits, torch.nan)


def test_a_task_ends_though_another_thread_has_driven_it_to_its_end():
    engine = new_engine()
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            engine.generate(prompt(1), **config(1))

    async def main():
        async with AsyncEngine(engine) as served:
            for seed in range(20):
                await asyncio.wait_for(served.generate(prompt(seed), **config(seed)), 600)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        asyncio.run(main())
    finally:
        stop.set()
        thread.join()
    assert idle(engine)


def test_an_engine_at_fault_leaves_nobody_waiting(monkeypatch):
    """Not a row but the scheduler itself fails; the next request is served again."""
    engine = new_engine()
    scheduler, faults = engine.scheduler, []

    def faulty():
        if not faults:
            faults.append(1)
            raise EngineError("an invariant does not hold")

    monkeypatch.setattr(scheduler, "_set_apart", faulty)

    async def main():
        async with AsyncEngine(engine) as served:
            first = await asyncio.gather(
                *(served.generate(prompt(s), **config(s)) for s in range(3)),
                return_exceptions=True,
            )
            return first, await served.generate(prompt(6), **config(6))

    first, last = asyncio.run(main())
    assert any(isinstance(found, EngineError) for found in first)
    assert last.ids == alone(6)
    assert idle(engine)


def test_who_sees_that_a_row_is_done_finds_its_last_event(monkeypatch):
    """Another thread may look between the two."""
    engine, seen = new_engine(), []
    request = engine.submit(prompt(2), **config(2))
    apply = HostCanvas.apply

    def watched(self, event):
        apply(self, event)
        if event.type == "done":
            seen.extend(e.type for e in request.pending())

    monkeypatch.setattr(HostCanvas, "apply", watched)
    request.wait()
    assert seen[-1] == "done"
