"""Times and blocks in `Stats`: the first step, the settling of tokens, the lengths of blocks."""

import asyncio
import threading
import time

import pytest

import dlm
from dlm.errors import EngineError

PARTS = {"unmask": "topk", "blocks": "fixed(8)", "max_new_tokens": 20}


@pytest.fixture(scope="module")
def engine():
    return dlm.load(device="cpu")


@pytest.mark.parametrize("cache", ["none", "dual"])
def test_settled_tokens_are_those_of_the_answer(engine, cache):
    eos = tuple(engine.info.eos_ids)
    answer = engine.generate("hello", guide=f"forbid({eos!r})", cache=cache, **PARTS)
    stats = answer.stats
    times = [when for when, _ in stats.settled]
    assert sum(tokens for _, tokens in stats.settled) == len(answer.ids) == 20
    assert stats.block_lengths == {8: 2, 4: 1}
    assert stats.changes["block"] == 3
    assert times == sorted(times)
    assert 0 < stats.first_seconds <= times[0] <= times[-1] <= stats.seconds


def test_given_tokens_do_not_settle(engine):
    answer = engine.generate("2+2=", infill="is [[mask:4]], you know", unmask="topk")
    assert sum(tokens for _, tokens in answer.stats.settled) == 4 < len(answer.ids)


def test_an_answer_that_has_not_begun_has_no_times(engine):
    request = engine.submit("hello", **PARTS)
    request.abort()
    stats = request.result().stats
    assert (stats.first_seconds, stats.settled, stats.block_lengths) == (0.0, (), {})


def test_an_engine_that_is_given_up_lets_everybody_go(engine):
    """The step itself goes on, and `close` does not wait for it."""
    entered, go, left = threading.Event(), threading.Event(), threading.Event()

    def block(*_):
        entered.set()
        go.wait(120)
        left.set()

    async def ask():
        served = dlm.AsyncEngine(engine)
        assert served.busy_seconds == 0
        handle = served.submit("hello", **PARTS)
        await asyncio.to_thread(entered.wait)
        time.sleep(0.01)
        assert served.busy_seconds >= 0.01
        served.give_up("it hangs")
        assert not served.alive
        with pytest.raises(EngineError, match="it hangs"):
            await handle.result()
        with pytest.raises(EngineError, match="it hangs"):
            served.submit("hello")
        await handle.abort()
        await served.close()
        assert not left.is_set(), "the step itself goes on"

    hook = engine.model.register_forward_pre_hook(block)
    try:
        asyncio.run(ask())
    finally:
        hook.remove()
        go.set()
