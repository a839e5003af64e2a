"""Commit steps; readers of holes and of snapshots, and one task that follows them all."""

import asyncio
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlm
from dlm import AsyncEngine, InvalidRequest
from dlm.core import Kind
from dlm.engine.readers import snapshot_of
from dlm.engine.row import RowState
from tests.engine.harness import info_of
from tests.engine.test_causal import engine_of
from tests.engine.test_deltas import BYTES, PROMPT, RULES, Fails
from tests.engine.test_served import run
from tests.helpers import random_decoder, tiny_spec

TEMPLATE = "wo [[mask:5]] lion[[mask:6]] a"


@pytest.fixture(scope="module")
def talker():
    return dlm.load("tiny", device="cpu")


# steps of commits


def steps_told(trace):
    """The step of the last commit of each position, as the events tell it."""
    return {
        at: event.step for event in trace if event.type in ("commit", "replace") for at in event.pos
    }


@settings(max_examples=60)
@given(data=st.data())
def test_commit_steps_are_those_of_the_events(talker, data):
    options = dict(data.draw(st.sampled_from(RULES)))
    if data.draw(st.booleans()):
        options["infill"] = TEMPLATE
    else:
        options["max_new_tokens"] = data.draw(st.integers(1, 24))
    options["temperature"] = data.draw(st.sampled_from([0.0, 1.0]))
    options["stop"] = data.draw(st.sampled_from([["eos"], ["none"], ["eos", "max_nfe(4)"], ["o"]]))
    options["n"] = data.draw(st.integers(1, 2))
    try:
        answer = talker.generate(PROMPT, **options, trace=True)
    except InvalidRequest:  # the template holds the stop string
        return
    for choice in answer.choices or (answer,):
        told, start = steps_told(choice.trace), len(choice.prompt_ids)
        found = [told.get(start + at, 0) for at in range(len(choice.ids))]
        assert list(choice.commit_steps) == found
        assert all(step <= choice.stats.nfe for step in choice.commit_steps)
        given = [step == 0 for step in choice.commit_steps]
        assert given == [logprob != logprob for logprob in choice.logprobs]
        (canvas,) = dlm.replay(choice.trace).values()
        assert tuple(canvas.born[start : start + len(choice.ids)]) == choice.commit_steps


def test_a_reader_that_lags_behind_does_not_change_the_steps_of_the_answer(talker):
    options = {"max_new_tokens": 24, "unmask": "topk", "blocks": "fixed(8)", "stop": "none"}
    free = talker.generate(PROMPT, **options)

    async def work(served):
        handle = served.submit(PROMPT, **options)
        answer = await handle
        return answer, [event async for event in handle.events()]

    answer, events = run(talker, work, max_events=3)
    assert events[0].step > 0
    assert events[0].type == "open"
    assert 0 not in answer.commit_steps
    assert answer.commit_steps == free.commit_steps


def test_a_fork_knows_the_steps_of_its_ancestor(talker):
    node = talker.start(PROMPT, max_new_tokens=16, unmask="topk", stop="none")
    talker.resume(node, steps=5)
    twin = talker.fork(node, 7)
    talker.resume([node, twin])
    early = {at for at, step in enumerate(twin._state.canvas.born) if 0 < step <= 5}
    assert len(early) == 5
    for found in (node, twin):
        born = found._state.canvas.born
        assert early == {at for at, step in enumerate(born) if 0 < step <= 5}
        assert sorted(born[found._state.canvas.prompt :]) == list(range(1, 17))


def test_an_autoregressive_answer_commits_one_id_a_step():
    engine, _ = engine_of(0)
    answer = engine.generate([5, 6, 7], max_new_tokens=6)
    assert answer.ids
    assert answer.commit_steps == tuple(range(1, len(answer.ids) + 1))


# holes


@pytest.mark.parametrize("hole", [-1, 2, 1.0, "0", True])
def test_a_wrong_hole_is_refused(talker, hole):
    request = talker.submit(PROMPT, infill=TEMPLATE)
    with pytest.raises(InvalidRequest, match="`hole`: must be an integer between 0 and 1, got"):
        request.deltas(0, hole)
    request.abort()


def test_a_hole_needs_an_infill(talker):
    request = talker.submit(PROMPT, max_new_tokens=4)
    with pytest.raises(InvalidRequest, match="`hole`: needs a request with `infill`"):
        request.deltas(hole=0)
    request.abort()


def test_a_hole_ends_before_its_row(talker):
    request = talker.submit(PROMPT, infill=TEMPLATE, unmask="topk", blocks="fixed(4)", stop="none")
    reader = request.delta_reader(hole=0)
    pieces = []
    while not reader.ended:
        pieces.append(reader.read())
        talker.step()
    assert not request.done
    assert "".join(pieces) == request.result().holes[0]


def test_a_hole_that_settles_before_its_row_fails_is_whole(talker):
    request = talker.submit(
        PROMPT, infill=TEMPLATE, unmask="topk", blocks="fixed(4)", stop="none", guide=Fails(9)
    )
    first, second = request.delta_reader(hole=0), request.delta_reader(hole=1)
    request.wait()
    free = talker.generate(PROMPT, infill=TEMPLATE, unmask="topk", blocks="fixed(4)", stop="none")
    assert first.read() == free.holes[0]
    assert first.ended
    assert second.read(), "what has settled of it"
    with pytest.raises(ZeroDivisionError):
        second.read()


# snapshots


def drawn(state, text, mask):
    """A snapshot's text by another way: position by position."""
    canvas, found, ids = state.canvas, [], []
    for at in range(canvas.prompt, state.limit):
        kind, token = canvas.kinds[at], canvas.ids[at]
        if kind == Kind.COMMITTED and token in state.end_ids:
            break
        if kind >= Kind.MASK:
            found += [(ids, False)] if ids else []
            found.append((mask, True))
            ids = []
        else:
            ids = [*ids, token]
    found += [(ids, False)] if ids else []
    spell = text.decode_inside if state.pinned else text.decode
    written = ""
    for number, (piece, is_open) in enumerate(found):
        written += piece if is_open else (text.decode_inside if number else spell)(piece)
    return written


@settings(max_examples=60)
@given(data=st.data())
def test_a_snapshot_is_the_canvas_as_it_stands(talker, data):
    options = dict(data.draw(st.sampled_from(RULES)))
    if data.draw(st.booleans()):
        options["infill"] = TEMPLATE
    else:
        options["max_new_tokens"] = data.draw(st.integers(1, 24))
    options |= {
        "temperature": 1.0,
        "seed": data.draw(st.integers(0, 99)),
        "logit_bias": data.draw(st.sampled_from([{}, {talker.info.eos_ids[0]: 6.0}, BYTES])),
    }
    mask = data.draw(st.sampled_from(["\u2591", "_", "<open>"]))
    request = talker.submit(PROMPT, **options)
    (state,), reader = request.states, request.snapshot_reader(mask=mask)
    assert not reader.has_news
    early = reader.read()
    assert early == replace(early, text="", step=0, filled=0.0, done=False)
    while not reader.ended:
        talker.step()
        assert reader.has_news
        found = reader.read()
        assert reader.has_news == found.done
        assert found.step == state.ledger.nfe
        if not found.done:
            to_fill = [at for at, token in enumerate(state.pinned) if token is None]
            to_fill = to_fill or range(state.bound.length)
            kinds = [state.canvas.kinds[len(state.prompt) + at] for at in to_fill]
            assert found.filled == kinds.count(Kind.COMMITTED) / len(kinds)
            assert found.text == drawn(state, talker.text, mask)
    assert found.text == request.result().text
    assert 0 < found.filled <= 1


def test_a_row_that_is_aborted_before_its_turn_has_an_empty_snapshot(talker):
    request = talker.submit(PROMPT, max_new_tokens=8)
    reader = request.snapshot_reader()
    request.abort()
    assert reader.has_news
    found = reader.read()
    assert (found.text, found.filled, found.done) == ("", 0.0, True)


def test_a_row_that_fails_raises_its_error_in_place_of_a_snapshot(talker):
    request = talker.submit(PROMPT, max_new_tokens=8, unmask="topk", guide=Fails(3))
    reader = request.snapshot_reader()
    request.wait()
    with pytest.raises(ZeroDivisionError):
        reader.read()
    assert reader.ended


def test_without_a_tokenizer_there_are_no_snapshots():
    spec = tiny_spec()
    engine = dlm.Engine(random_decoder(spec), info_of(spec))
    request = engine.submit([5, 6], max_new_tokens=4)
    with pytest.raises(InvalidRequest, match="`snapshots`: need a tokenizer"):
        request.snapshot_reader()
    request.abort()


@pytest.mark.parametrize("rules", [RULES[4], RULES[5], RULES[6]])
def test_another_thread_sees_no_canvas_in_the_middle_of_a_step(talker, rules, monkeypatch):
    """Each snapshot taken while the row is driven is that of the end of a step."""
    record, ends = RowState.record, {}

    def recorded(self, step):
        with self.lock:
            record(self, step)
            ends.setdefault(self.row, {})[self.ledger.nfe] = (
                drawn(self, talker.text, "_") if not self.done else None
            )

    monkeypatch.setattr(RowState, "record", recorded)
    request = talker.submit(PROMPT, **rules, max_new_tokens=48, stop="none", n=2, temperature=1.0)
    seen, over = [], threading.Event()

    def look():
        while not over.is_set():
            for state in request.states:
                seen.append((state.row, snapshot_of(state, talker.text, "_")))
            time.sleep(0.0002)  # let the driver have the interpreter

    thread = threading.Thread(target=look)
    thread.start()
    answer = request.result()
    over.set()
    thread.join()
    running = [(row, found) for row, found in seen if found.step and not found.done]
    assert len({(row, found.step) for row, found in running}) > 3
    for row, found in running:
        assert found.text == ends[row][found.step]
    for row, choice in enumerate(answer.choices):
        assert snapshot_of(request.states[row], talker.text).text == choice.text


def test_a_snapshot_waits_for_the_end_of_a_step_that_is_written(talker, monkeypatch):
    """A reader comes in the middle of each change of the canvas."""
    apply, found = dlm.HostCanvas.apply, []
    request = talker.submit(PROMPT, **RULES[4], max_new_tokens=16, stop="none")
    (state,) = request.states

    def interrupted(self, event):
        if event.type in ("commit", "remask"):
            other = threading.Thread(
                target=lambda: found.append(snapshot_of(state, talker.text, "_"))
            )
            other.start()
            other.join(0.02)
            waiting.append(other)
        apply(self, event)

    waiting, most = [], 0
    monkeypatch.setattr(dlm.HostCanvas, "apply", interrupted)
    while not request.done:
        talker.step()
        most = max(most, len(waiting))
        for other in waiting:
            other.join()
        now = snapshot_of(state, talker.text, "_")
        assert found == [now] * len(waiting)
        found.clear()
        waiting.clear()
    assert most > 1, "no step had two changes"


# one task for all


def test_one_task_follows_all_choices_and_has_time_for_others(talker):
    options = {"max_new_tokens": 24, "temperature": 1.0, "unmask": "topk", "blocks": "fixed(4)"}

    async def work(served):
        handle = served.submit(PROMPT, **options, n=3)
        with pytest.raises(RuntimeError, match="after `queued` was awaited"):
            handle.delta_reader()
        await handle.queued()
        readers = [handle.delta_reader(choice) for choice in range(3)]
        shots, texts, frames = [handle.snapshot_reader(c) for c in range(3)], [""] * 3, [None] * 3
        while not all(reader.ended for reader in readers):
            assert await handle.wait_for(
                lambda: any(r.has_news and not r.ended for r in readers), timeout=60
            )
            for choice, reader in enumerate(readers):
                texts[choice] += "" if reader.ended else reader.read()
        for choice, shot in enumerate(shots):
            frames[choice] = shot.read()
        assert not served._listeners
        return texts, frames, await handle

    texts, frames, answer = run(talker, work)
    assert texts == [choice.text for choice in answer.choices]
    assert [frame.text for frame in frames] == texts
    assert all(frame.done for frame in frames)


def test_a_wait_without_news_ends_in_time_and_leaves_nothing_behind(talker):
    async def work(served):
        handle = served.submit(PROMPT, max_new_tokens=8)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        assert not await handle.wait_for(lambda: False, timeout=0.05)
        assert loop.time() - begun >= 0.05
        assert not await handle.wait_for(lambda: False, timeout=0)
        assert await handle.wait_for(lambda: True, timeout=0)
        waits = asyncio.create_task(handle.wait_for(lambda: False))
        await asyncio.sleep(0.01)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        assert not served._listeners
        await handle

    run(talker, work)


@pytest.mark.parametrize("error", [TimeoutError(), KeyError("x")])
def test_the_error_of_a_look_for_news_is_raised_where_it_is_waited_for(talker, error):
    """It is met in the driving thread, which goes on."""
    options = {"max_new_tokens": 48, "unmask": "topk"}

    async def work(served):
        handle = served.submit(PROMPT, **options)
        await handle.queued()
        reader, looks = handle.snapshot_reader(), []

        def look():
            looks.append(threading.current_thread().name)
            if len(looks) > 1:
                raise error
            return reader.has_news and False

        with pytest.raises(type(error)):
            await handle.wait_for(look, timeout=60)
        assert looks[1].startswith("dlm"), "in a thread of the engine"
        assert served.alive
        return await handle

    assert run(talker, work).ids == talker.generate(PROMPT, **options).ids


def test_a_wait_ends_with_the_engine(talker):
    async def main():
        served = AsyncEngine(talker)
        handle = served.submit(PROMPT, max_new_tokens=8)
        waits = asyncio.create_task(handle.wait_for(lambda: False, timeout=60))
        await asyncio.sleep(0)
        await served.close()
        with pytest.raises(RuntimeError, match="the engine is closed"):
            await waits

    asyncio.run(main())
