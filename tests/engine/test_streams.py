"""Streams: nothing that a stop string takes away is settled, and the last event is the result."""

import asyncio
import threading
from dataclasses import dataclass

import pytest

import dlm
from dlm import AsyncEngine, Generation, InvalidRequest, StopString
from dlm.core import Kind

PROMPT = "Say the word lion three times."
LINES = "Compute 3*7."
WAYS = {
    "one by one": {"unmask": "topk", "blocks": "fixed(8)"},
    "at once": {"unmask": "threshold(0.5)", "cache": "dual"},
    "whole rows": {"unmask": "everything", "edit": "rcr(16)", "blocks": "fixed(16)"},
    "early": {"unmask": "topk", "stop": ["prophet(0.5, 0.2, 0.1)"], "blocks": "fixed(16)"},
    "no end": {"unmask": "topk", "stop": ["none"], "blocks": "whole"},
    "pinned": {"infill": "I say: [[mask:12]]!\nAnd [[mask:8]]"},
}


@dataclass(frozen=True)
class Fails(dlm.Guide):
    """A guide that raises in its third step."""

    def __call__(self, logits, frame, params):
        if int(frame.row.step[0]) == 2:
            raise ZeroDivisionError
        return logits


@pytest.fixture(scope="module")
def engine():
    return dlm.load("tiny", device="cpu")


def asked(way, *stops):
    options = {"max_new_tokens": 32, **WAYS[way]}
    if "infill" in options:
        del options["max_new_tokens"]
    return options | {"stop": [*options.get("stop", ()), *map(StopString, stops)]}


def settled_texts(engine, events):
    """The text of what has settled, after each event."""
    canvas, texts = dlm.HostCanvas(), []
    for event in events:
        canvas.apply(event)
        assert all(kind < Kind.MASK for kind in canvas.kinds[: canvas.settled])
        answer = canvas.ids[canvas.prompt : canvas.settled]
        ends = [at for at, token in enumerate(answer) if token in engine.info.eos_ids]
        assert ends[:1] in ([], [len(answer) - 1]) or "infill" in str(events[0].data)
        texts.append(engine.text.decode(answer[: ends[0]] if ends else answer))
    return texts


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("prompt", [PROMPT, LINES])
def test_what_has_settled_is_the_beginning_of_the_text(engine, way, prompt):
    free = engine.generate(prompt, **asked(way))
    text = free.text
    cuts = [text[at : at + size] for at in range(0, len(text), 7) for size in (1, 2, 4)]
    for stops in (*[(cut,) for cut in dict.fromkeys(cuts)][:12:4], (text[-3:], text[4:8]), ("§",)):
        if not all(stops):
            continue
        try:
            answer = engine.generate(prompt, **asked(way, *stops))
        except InvalidRequest as error:
            assert "stands in `infill`" in str(error)  # noqa: PT017
            continue
        events = list(engine.stream(prompt, **asked(way, *stops)))
        last = events[-1].result
        assert [events[0].type, events[-1].type] == ["open", "done"]
        assert (last.text, last.ids, last.finish_reason) == (
            answer.text, answer.ids, answer.finish_reason
        )  # fmt: skip
        assert not any(stop in last.text for stop in stops)
        texts = settled_texts(engine, events)
        assert all(last.text.startswith(shown) for shown in texts)
        if last.finish_reason == "length":
            assert texts[-1] == last.text
        canvas = dlm.replay(events)[0]
        assert tuple(canvas.ids) == answer.canvas


def test_a_stop_string_that_only_begins_is_held_back_and_then_settles(engine):
    free = engine.generate(PROMPT, **asked("one by one"))
    stop = free.text[:12] + "§"
    events = list(engine.stream(PROMPT, **asked("one by one", stop)))
    texts = settled_texts(engine, events)
    assert texts[-1] == events[-1].result.text == free.text
    assert not any(0 < len(shown) < 12 for shown in texts)


def test_ids_behind_a_stop_string_do_not_settle_though_they_are_committed(engine):
    events = list(engine.stream(LINES, stop=["\n"], unmask="everything", blocks="whole"))
    answer = events[-1].result
    canvas = dlm.replay(events)[0]
    assert answer.finish_reason == "stop"
    assert "\n" not in answer.text
    assert engine.text.decode(canvas.ids[canvas.prompt : canvas.settled]) == answer.text
    assert any(kind == Kind.COMMITTED for kind in canvas.kinds[canvas.settled :])


def test_a_stream_gives_its_result_in_every_way(engine):
    options = {"max_new_tokens": 24, "unmask": "topk"}
    answer = engine.generate(PROMPT, **options)
    stream = engine.stream(PROMPT, **options)
    assert isinstance(stream, dlm.Stream)
    first = next(stream)
    assert (first.type, first.result) == ("open", None)
    assert stream.result().ids == answer.ids
    assert stream.result() == stream.result()
    assert list(stream) == []
    with engine.stream(PROMPT, **options) as stream:
        next(stream)
    assert stream.result().finish_reason == "abort"
    stream = engine.stream(PROMPT, **options)
    stream.close()
    assert (stream.result().finish_reason, stream.result().ids) == ("abort", ())
    assert engine.kv.pages.in_use == 0
    last = list(engine.stream(PROMPT, **options))[-1]
    assert dlm.Event.from_json(last.to_json()) == last
    assert last.to_json()["data"] == {"reason": last.result.finish_reason}


def test_an_aborted_stream_ends_with_what_there_is(engine):
    request = engine.submit(PROMPT, max_new_tokens=24, unmask="topk")
    events = []
    for event in request.events():
        events.append(event)
        if event.step == 5 and event.type == "commit":
            request.abort()
    assert events[-1].type == "done"
    assert events[-1].result.finish_reason == "abort"
    assert events[-1].result.stats.nfe == 5


def test_a_streamer_puts_the_text_and_nothing_behind_it(engine):
    class Recorder:
        def __init__(self):
            self.ids, self.puts = [], 0

        def put(self, value):
            self.puts += 1
            self.ids += value.tolist() if self.puts > 1 else []

        def end(self):
            pass

    free = engine.generate(PROMPT, max_new_tokens=32, unmask="topk", blocks="fixed(4)").text
    for at in range(1, len(free) - 1, 3):
        recorder, stop = Recorder(), StopString(free[at : at + 2])
        options = {"max_new_tokens": 32, "unmask": "topk", "blocks": "fixed(4)", "stop": stop}
        answer = engine.generate(PROMPT, streamer=recorder, **options)
        assert engine.text.decode(recorder.ids) == answer.text


# asyncio


def run(engine, work):
    async def main():
        async with AsyncEngine(engine) as served:
            return await work(served)

    try:
        return asyncio.run(asyncio.wait_for(main(), 120))
    finally:
        engine.scheduler.check_integrity()
        assert engine.kv.pages.in_use == 0


@pytest.mark.parametrize("stops", [["\n"], ["1", "§"], ["\n", "21"], ["nothing of it"]])
def test_an_async_stream_settles_the_text_and_ends_with_the_result(engine, stops):
    async def work(served):
        return [event async for event in served.stream(LINES, stop=stops)]

    events = run(engine, work)
    answer = engine.generate(LINES, stop=stops)
    last = events[-1].result
    assert isinstance(last, Generation)
    assert (last.text, last.ids) == (answer.text, answer.ids)
    assert all(answer.text.startswith(text) for text in settled_texts(engine, events))


def test_options_are_checked_at_the_call_and_what_takes_longer_where_it_is_awaited(engine):
    async def work(served):
        for begin in (served.submit, served.stream):
            for options in ({"unmaks": "topk"}, {"max_new_tokens": 0}, {"temperature": -1}):
                with pytest.raises(InvalidRequest):
                    begin(PROMPT, **options)
            with pytest.raises(InvalidRequest, match="must be a text, or a list"):
                begin([1.5])
        for prompt, options, words in (
            (PROMPT, {"unmask": "nope"}, "`unmask`"),
            ([], {}, "must not be empty"),
            (PROMPT, {"max_new_tokens": 10**6}, "limit of the model"),
        ):
            handle = served.submit(prompt, **options)
            for wait in (handle.queued, handle.result, served.stream(prompt, **options).__anext__):
                with pytest.raises(InvalidRequest, match=words):
                    await wait()
            with pytest.raises(InvalidRequest, match=words):
                await served.generate(prompt, **options)
            assert handle.done
            await handle.abort()

    run(engine, work)


def test_submit_gives_a_handle_whose_row_runs_by_itself(engine):
    answer = engine.generate(PROMPT, max_new_tokens=24)

    async def work(served):
        handles = [served.submit(PROMPT, max_new_tokens=24) for _ in range(3)]
        assert not any(handle.done for handle in handles[:0])
        while not handles[0].done:
            await asyncio.sleep(0.001)
        events = [event async for event in handles[1].events()]
        return await handles[0], await handles[1].result(), await handles[2], events

    *results, events = run(engine, work)
    assert [result.ids for result in results] == [answer.ids] * 3
    assert events[-1].result.ids == answer.ids
    assert tuple(dlm.replay(events)[0].ids) == answer.canvas


def test_cancelling_who_waits_for_a_handle_does_not_end_it_and_abort_does(engine):
    async def work(served):
        handle = served.submit(PROMPT, max_new_tokens=64, unmask="topk")
        waiting = [asyncio.create_task(handle.result()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        assert not handle.done
        both = await waiting[1], await waiting[2]
        lost = served.submit(PROMPT, max_new_tokens=64, unmask="topk")
        await lost.abort()
        return *both, await lost

    first, second, lost = run(engine, work)
    assert first.ids == second.ids
    assert lost.finish_reason == "abort"


def test_a_stream_of_several_choices_gives_each_with_its_end(engine):
    options = {"max_new_tokens": 16, "temperature": 1.0, "n": 3}

    async def work(served):
        stream = served.stream(PROMPT, **options)
        events = [event async for event in stream]
        return events, await stream.result()

    events, whole = run(engine, work)
    answer = engine.generate(PROMPT, **options)
    done = {event.row: event.result.ids for event in events if event.type == "done"}
    assert done == {row: choice.ids for row, choice in enumerate(answer.choices)}
    assert [choice.ids for choice in whole.choices] == [choice.ids for choice in answer.choices]


def test_leaving_an_async_stream_frees_its_row(engine):
    async def work(served):
        async with served.stream(PROMPT, max_new_tokens=64, unmask="topk") as stream:
            async for event in stream:
                if event.type == "commit":
                    break
        left = await stream.result()
        unread = served.stream(PROMPT, max_new_tokens=8)
        await unread.aclose()
        task = asyncio.create_task(anext(served.stream(PROMPT, max_new_tokens=64)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return left, await served.generate(PROMPT, max_new_tokens=8)

    left, after = run(engine, work)
    assert left.finish_reason == "abort"
    assert after.ids == engine.generate(PROMPT, max_new_tokens=8).ids


async def read(stream, events):
    async for event in stream:
        events.append(event)


def test_rows_that_fail_one_after_the_other_raise_at_the_end_of_their_streams(engine):
    async def work(served):
        for _ in range(3):
            events = []
            with pytest.raises(ZeroDivisionError):
                await read(served.stream(PROMPT, guide=Fails(), unmask="topk"), events)
            assert events[-1].data == {"reason": "error"}
            assert events[-1].result is None
            handle = served.submit(PROMPT, guide=Fails(), unmask="topk")
            with pytest.raises(ZeroDivisionError):
                await handle
        return await served.generate(PROMPT, max_new_tokens=8)

    assert run(engine, work).ids == engine.generate(PROMPT, max_new_tokens=8).ids


def test_a_closed_engine_takes_nothing_and_leaves_nothing_queued(engine):
    async def work():
        served = AsyncEngine(engine)
        handle = served.submit(PROMPT, max_new_tokens=64, unmask="topk")
        waiting = asyncio.create_task(handle.result())
        await handle.queued()
        await served.close()
        for begin in (served.submit, served.generate):
            with pytest.raises(RuntimeError, match="closed"):
                await begin(PROMPT)
        with pytest.raises(RuntimeError, match="closed"):
            await anext(served.stream(PROMPT))
        return await waiting

    assert asyncio.run(asyncio.wait_for(work(), 60)).finish_reason in ("abort", "stop", "length")
    engine.step()
    assert engine.scheduler.live == 0
    assert engine.kv.pages.in_use == 0


def test_a_slow_reader_loses_nothing(engine):
    async def work(served):
        stream = served.stream(PROMPT, max_new_tokens=24, unmask="topk")
        events = [await anext(stream)]
        other = await served.generate(PROMPT, max_new_tokens=40)
        threading.Event().wait(0.2)  # not even the event loop runs
        events += [event async for event in stream]
        return events, other

    events, _ = run(engine, work)
    answer = engine.generate(PROMPT, max_new_tokens=24, unmask="topk", trace=True)
    assert tuple(events) == answer.trace
