"""`AsyncEngine.decide`: between the steps of what is decoded, cancelled, and after `close`."""

import asyncio
import threading

import pytest

import dlm
from dlm import AsyncEngine, Choice, Engine, Predicate
from dlm.engine.decisions import DecisionJob
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

DECODING = {"max_new_tokens": 48, "stop": "none", "blocks": "fixed(8)"}


@pytest.fixture(scope="module")
def text():
    return dlm.load().text


@pytest.fixture
def engine(text):
    spec = tiny_spec(
        vocab_size=1024,
        mask_id=4,
        eos_ids=(3, 8),
        attention="block_causal",
        block_length=8,
    )
    return Engine(random_decoder(spec), info_of(spec), text)


def asked(count):
    return [Choice(f"c{n}", f"Which of {n}?", ("x", "y")) for n in range(count)]


def probabilities(found):
    return [p for answer in found for _, p in answer.probabilities]


def test_tasks_decide_while_others_decode(engine):
    expected = engine.decide("Dear winner, you have won. " * 4, asked(5))
    alone = engine.generate("Say a word.", **DECODING).ids

    async def main():
        async with AsyncEngine(engine) as served:
            tasks = [served.generate("Say a word.", **DECODING) for _ in range(2)]
            tasks += [served.decide("Dear winner, you have won. " * 4, asked(5)) for _ in range(4)]
            return await asyncio.gather(*tasks)

    *answers, one, two, three, four = asyncio.run(main())
    assert {answer.ids for answer in answers} == {alone}
    for found in (one, two, three, four):
        assert probabilities(found) == pytest.approx(probabilities(expected), rel=1e-4)
        assert found.costs.nfe == expected.costs.nfe
    assert engine.kv.pages.in_use == 0


def test_rows_go_on_between_two_forwards(engine, monkeypatch):
    """A large request does not hold up the rows: they step between its forwards."""
    monkeypatch.setattr("dlm.engine.decisions.job.MOST_POSITIONS", 64)
    order = []
    step, compute = engine.step, DecisionJob.step

    def stepped():
        order.append("step")
        step()

    def computed(job):
        order.append("decide")
        return compute(job)

    monkeypatch.setattr(Engine, "step", lambda _: stepped())
    monkeypatch.setattr(DecisionJob, "step", computed)

    async def main():
        async with AsyncEngine(engine) as served:
            request = served.submit("Say a word.", **DECODING)
            await request.queued()
            await served.decide("Dear winner, you have won.", asked(12))
            await request

    asyncio.run(main())
    first, last = order.index("decide"), len(order) - order[::-1].index("decide")
    between = order[first:last]
    assert between.count("decide") > 6
    assert between.count("step") >= between.count("decide") // 2


def test_a_cancelled_task_frees_its_pages(engine, monkeypatch):
    monkeypatch.setattr("dlm.engine.decisions.job.MOST_POSITIONS", 64)
    begun, compute = threading.Event(), DecisionJob.step

    def computed(job):
        more = compute(job)
        begun.set()
        return more

    monkeypatch.setattr(DecisionJob, "step", computed)

    async def main():
        async with AsyncEngine(engine) as served:
            task = asyncio.ensure_future(served.decide("Dear winner, you have won. " * 8, asked(9)))
            await asyncio.to_thread(begun.wait)
            assert engine.kv.pages.in_use > 0
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert engine.kv.pages.in_use == 0
            return await served.decide("It.", asked(1))

    assert len(asyncio.run(main()).answers) == 1


def test_errors_are_raised_where_they_are_awaited(engine):
    async def main():
        served = AsyncEngine(engine)
        with pytest.raises(dlm.InvalidRequest, match="questions"):
            await served.decide("It.", [])
        with pytest.raises(dlm.InvalidRequest, match="rotations"):
            await served.decide("It.", asked(1), rotations=0)
        with pytest.raises(dlm.InvalidRequest, match="positions"):
            await served.decide("It is. " * 2000, Predicate("p", "Is it?"))
        await served.close()
        with pytest.raises(RuntimeError, match="closed"):
            await served.decide("It.", asked(1))

    asyncio.run(main())
    assert engine.kv.pages.in_use == 0
