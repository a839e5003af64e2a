"""`AsyncEngine` for a server: binding aside, bounded mailboxes, wake-ups, and bad readers."""

import asyncio
import threading
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlm
from dlm import AsyncEngine, Engine, InvalidRequest, Unavailable
from dlm.core.canvas import HostCanvas, Mailbox
from tests.engine.harness import info_of
from tests.engine.test_deltas import Fails
from tests.helpers import random_decoder, tiny_spec

PROMPT = "Say the word lion three times."
OPTIONS = {"max_new_tokens": 16, "stop": "none", "unmask": "topk", "blocks": "fixed(8)"}
BOX = 8


@pytest.fixture(scope="module")
def talker():
    return dlm.load("tiny", device="cpu")


@pytest.fixture
def engine():
    return new_engine()


def new_engine(**sizes):
    spec = tiny_spec()
    return Engine(random_decoder(spec), info_of(spec), **sizes)


def run(engine, work, **options):
    """`work(served)` in a loop of its own; nothing is left behind."""

    async def main():
        async with AsyncEngine(engine, **options) as served:
            found = await work(served)
            return found, served

    found, served = asyncio.run(asyncio.wait_for(main(), 300))
    assert not served._running
    assert not served._listeners
    assert (engine.live, engine.waiting, engine.kv.pages.in_use) == (0, 0, 0)
    engine.scheduler.check_integrity()
    return found


class Gate:
    """Lets `Engine.prepare` begin, and go on only when it is opened."""

    def __init__(self, engine, monkeypatch):
        self.begun, self.opened, self.threads = threading.Event(), threading.Event(), []
        prepare = engine.prepare

        def gated(prompt, config, **options):
            self.threads.append(threading.current_thread().name)
            self.begun.set()
            assert self.opened.wait(60)
            return prepare(prompt, config, **options)

        monkeypatch.setitem(engine.__dict__, "prepare", gated)

    async def reached(self):
        """Wait, in the loop, until one request is being bound."""
        while not self.begun.is_set():
            await asyncio.sleep(0.001)


async def read(deltas, found):
    async for delta in deltas:
        found.append(delta)


async def joined(deltas):
    return "".join([delta async for delta in deltas])


# deltas


@pytest.mark.parametrize("stop", [[], ["\n"], ["ion"], ["lion l"]])
def test_each_choice_has_readers_of_its_own(talker, stop):
    options = {"max_new_tokens": 24, "temperature": 1.0, "n": 3, "stop": stop, "seed": 2}

    async def work(served):
        handle = served.submit(PROMPT, **options)
        texts = await asyncio.gather(*(joined(handle.deltas(i)) for i in (0, 1, 2, 2, 0)))
        return texts, await handle, await joined(handle.deltas(1))

    texts, answer, late = run(talker, work)
    first, second, third = (choice.text for choice in answer.choices)
    assert texts == [first, second, third, third, first]
    assert late == second


def test_a_row_that_fails_raises_after_its_last_delta(talker):
    async def work(served):
        handle = served.submit(PROMPT, unmask="topk", blocks="fixed(4)", guide=Fails(6))
        found = []
        with pytest.raises(ZeroDivisionError):
            await read(handle.deltas(), found)
        with pytest.raises(InvalidRequest, match="`choice`"):
            handle.deltas(1)
        unbound = served.submit(PROMPT, unmask="nope")
        with pytest.raises(InvalidRequest, match="`unmask`"):
            await joined(unbound.deltas())
        return found

    found = run(talker, work)
    free = talker.generate(PROMPT, unmask="topk", blocks="fixed(4)").text
    assert "".join(found)
    assert free.startswith("".join(found))


def test_a_reader_that_leaves_disturbs_nobody(talker):
    async def work(served):
        handle = served.submit(PROMPT, max_new_tokens=24, unmask="topk", blocks="fixed(4)")
        leaving = handle.deltas()
        first = await anext(leaving)
        await leaving.aclose()
        waiting = asyncio.create_task(joined(handle.deltas()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return first, await joined(handle.deltas()), await handle

    first, text, answer = run(talker, work)
    assert text == answer.text
    assert text.startswith(first)


# mailboxes


@settings(max_examples=60)
@given(st.data())
def test_what_is_left_of_a_full_mailbox_replays_to_the_same_canvas(traces, data):
    trace = data.draw(st.sampled_from(traces))
    canvas, seen = HostCanvas(), []
    box = Mailbox(canvas, data.draw(st.integers(2, 12)))
    for event in trace:
        box.append(event)
        canvas.apply(event)
        assert len(box) <= max(box._most, 2)
        for _ in range(data.draw(st.sampled_from([0, 0, 0, 1, 3]))):
            with suppress(IndexError):
                seen.append(box.popleft())
    seen += box
    found = dlm.replay(seen)[trace[0].row]
    for name in ("ids", "kinds", "settled", "prompt", "reason"):
        assert getattr(found, name) == getattr(canvas, name)
    assert seen[-1] == trace[-1]


@pytest.fixture(scope="module")
def traces():
    engine = new_engine()
    return [
        engine.generate([5, 9, 3], **OPTIONS | options, trace=True).trace
        for options in (
            {},
            {"max_new_tokens": 40},
            {"unmask": "everything", "edit": "rcr(6)", "stop": "eos('block')"},
            {"stop": "eos", "temperature": 1.0, "logit_bias": {1: 3.0}},
        )
    ]


def test_a_reader_that_does_not_read_costs_a_bounded_mailbox(engine):
    async def work(served):
        handle = served.submit([5, 9], **OPTIONS | {"max_new_tokens": 200}, n=2)
        answer = await handle
        states = handle._job.result().states
        held = [len(state.events) for state in states]
        unread = served.submit([5, 9], **OPTIONS)
        await unread
        return answer, held, [event async for event in handle.events()]

    answer, held, events = run(engine, work, max_events=BOX)
    assert all(2 <= count <= BOX for count in held)
    canvases = dlm.replay(events)
    for row, choice in enumerate(answer.choices):
        assert tuple(canvases[row].ids) == choice.canvas
        last = [event for event in events if event.row == row][-1]
        assert (last.type, last.result.ids) == ("done", choice.ids)


def test_a_slow_reader_gets_a_canvas_and_goes_on(engine):
    async def work(served):
        stream = served.stream([5, 9], **OPTIONS | {"max_new_tokens": 120})
        events = [await anext(stream) for _ in range(3)]
        threading.Event().wait(0.1)  # not even the event loop runs
        async for event in stream:
            events.append(event)
            await asyncio.sleep(0.003 * (len(events) % 7 == 0))
        return events

    events = run(engine, work, max_events=2)
    answer = engine.generate([5, 9], **OPTIONS | {"max_new_tokens": 120})
    assert [event.type for event in events].count("open") > 1
    assert tuple(dlm.replay(events)[0].ids) == answer.canvas
    assert events[-1].result.ids == answer.ids


@pytest.mark.parametrize("value", [1, 0, -3, 2.0, None, True])
def test_a_mailbox_holds_two_at_least(engine, value):
    with pytest.raises(InvalidRequest, match="`max_events`: must be an integer of at least 2, got"):
        AsyncEngine(engine, max_events=value)


# wake-ups


def test_only_those_with_news_are_woken(engine):
    """50 that wait for a result are woken once each, a reader of events once a step at most."""
    woken = []

    async def work(served):
        loop = asyncio.get_running_loop()
        call = loop.call_soon_threadsafe

        def counted(callback, *args, **options):
            if getattr(callback, "__func__", None) is asyncio.Event.set:
                woken.append(callback.__self__)
            return call(callback, *args, **options)

        loop.call_soon_threadsafe = counted
        long = OPTIONS | {"max_new_tokens": 64}
        answers = [served.generate([5, 9, 3 + i], **long) for i in range(50)]
        reader = served.stream([7], **OPTIONS)
        events, *found = await asyncio.gather(all_of(reader), *answers)
        return events, found

    events, found = run(engine, work)
    assert len(found) == 50
    assert len(woken) == len(set(woken)), "told twice of one thing"
    steps = events[-1].step
    assert len(woken) <= 50 + steps + 2  # the reader: queued, each step, its end


async def all_of(events):
    return [event async for event in events]


# binding aside


def test_binding_does_not_hold_the_loop_and_keeps_the_order(engine, monkeypatch):
    gate, queued = Gate(engine, monkeypatch), []
    enqueue = engine.enqueue
    monkeypatch.setitem(
        engine.__dict__,
        "enqueue",
        lambda request: (queued.append(request.states[0].prompt), enqueue(request)),
    )

    async def work(served):
        handles = [served.submit([5, i], **OPTIONS) for i in range(3, 15)]
        await gate.reached()
        for _ in range(20):  # the loop goes on
            await asyncio.sleep(0)
        assert not any(handle.done for handle in handles)
        gate.opened.set()
        return await asyncio.gather(*handles)

    answers = run(engine, work)
    assert queued == [(5, i) for i in range(3, 15)]
    assert set(gate.threads) == {"dlm-bind_0"}
    assert [answer.prompt_ids for answer in answers] == queued


def test_a_prompt_is_taken_as_it_was_at_the_call(engine):
    async def work(served):
        prompt = [5, 9]
        handle = served.submit(prompt, **OPTIONS)
        prompt += [99999]
        return await handle

    assert run(engine, work).prompt_ids == (5, 9)


def test_cancelling_while_a_request_is_bound_leaves_nothing(engine, monkeypatch):
    gate = Gate(engine, monkeypatch)

    async def work(served):
        tasks = [asyncio.create_task(served.generate([5, i], **OPTIONS)) for i in (7, 8, 9)]
        stream = served.stream([5], **OPTIONS)
        tasks.append(asyncio.create_task(anext(stream)))
        await gate.reached()
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(found, asyncio.CancelledError) for found in done)
        gate.opened.set()
        left = await stream.result()
        assert engine.waiting == engine.live == 0
        return left

    left = run(engine, work)
    assert (left.finish_reason, left.ids) == ("abort", ())
    assert len(gate.threads) == 2, "those that waited to be bound were not bound"


def test_a_handle_aborted_while_it_is_bound_is_never_queued(engine, monkeypatch):
    gate = Gate(engine, monkeypatch)

    async def work(served):
        handles = [served.submit([5, 9], **OPTIONS) for _ in range(2)]
        waiting = [asyncio.create_task(handle.result()) for handle in handles]
        deltas = asyncio.create_task(all_of(handles[1].events()))
        await gate.reached()
        for handle in handles:
            await handle.abort()
            assert not handle.done
        gate.opened.set()
        return [await task for task in waiting], await deltas

    monkeypatch.setitem(engine.__dict__, "enqueue", None)
    answers, events = run(engine, work)
    for answer in answers:
        assert (answer.finish_reason, answer.ids, answer.prompt_ids) == ("abort", (), (5, 9))
    assert [event.type for event in events] == ["done"]


def test_closing_while_requests_are_bound_ends_all(engine, monkeypatch):
    gate = Gate(engine, monkeypatch)

    async def work(served):
        handles = [served.submit([5, 9], **OPTIONS) for _ in range(3)]
        waiting = [asyncio.create_task(handle.result()) for handle in handles]
        stream = asyncio.create_task(anext(served.stream([5], **OPTIONS)))
        await gate.reached()
        closing = asyncio.create_task(served.close())
        while not served._closed:
            await asyncio.sleep(0.001)
        with pytest.raises(RuntimeError, match="the engine is closed"):
            served.submit([5], **OPTIONS)
        gate.opened.set()
        await closing
        return await asyncio.gather(*waiting, stream, return_exceptions=True), handles

    found, handles = run(engine, work)
    assert [str(error) for error in found] == ["the engine is closed"] * 4
    assert all(handle.done for handle in handles)
    assert len(gate.threads) == 1


def test_a_full_queue_is_reported_where_the_handle_is_awaited():
    engine = new_engine(max_rows=1, max_waiting=1)

    async def work(served):
        long = OPTIONS | {"max_new_tokens": 400}
        handles = [served.submit([5, 9], **long) for _ in range(4)]
        await handles[0].queued()
        await handles[1].queued()
        for handle in handles[2:]:
            for wait in (handle.queued, handle.result, lambda h=handle: all_of(h.events())):
                with pytest.raises(Unavailable, match="queue is full"):
                    await wait()
            await handle.abort()
        for handle in handles[:2]:
            await handle.abort()
        return [(await handle).finish_reason for handle in handles[:2]]

    assert run(engine, work) == ["abort", "abort"]


# loops that end


def test_a_loop_that_is_closed_with_readers_in_it_harms_no_other(engine):
    served = AsyncEngine(engine)

    async def leaves():
        handle = served.submit([5, 9], **OPTIONS | {"max_new_tokens": 300})
        served.submit([5, 8], **OPTIONS)
        waiting = asyncio.create_task(handle.result())
        waiting._log_destroy_pending = False
        events = handle.events()
        return [await anext(events) for _ in range(2)], handle

    async def goes_on(handle):
        answer = await served.generate([5, 7], **OPTIONS)
        whole = await handle
        await served.close()
        return answer, whole

    loop = asyncio.new_event_loop()
    _, handle = loop.run_until_complete(leaves())
    loop._ready.clear()
    loop.close()  # tasks and readers are still in it
    answer, whole = asyncio.run(asyncio.wait_for(goes_on(handle), 300))
    alone = new_engine()
    assert answer.ids == alone.generate([5, 7], **OPTIONS).ids
    assert whole.ids == alone.generate([5, 9], **OPTIONS | {"max_new_tokens": 300}).ids
    assert engine.kv.pages.in_use == 0


def test_an_aborted_row_is_gone_in_the_next_step_though_others_run(engine):
    async def work(served):
        kept = served.submit([5, 9], **OPTIONS | {"max_new_tokens": 200})
        lost = served.submit([5, 8], **OPTIONS | {"max_new_tokens": 200})
        async for event in lost.events():
            if event.type == "commit":
                break
        step = lost._job.result().states[0].ledger.nfe
        await lost.abort()
        held = engine.live
        answer = await lost
        assert answer.stats.nfe - step <= 4
        return held, answer, await kept

    held, lost, kept = run(engine, work)
    assert held == 1
    assert lost.finish_reason == "abort"
    assert kept.finish_reason == "length"
