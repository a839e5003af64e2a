"""Text deltas: together they are the text of the answer, however it is decoded and however it ends,
and nothing that was given is taken back.
"""

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlm
from dlm import AsyncEngine, Engine, Guide, InvalidRequest, StopString
from dlm.engine.load import BUNDLED
from dlm.text import load_text
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec
from tests.rules.reopening import ReopensFirst
from tests.rules.wino import NarrowOut, WideIn

PROMPT = "Say the word lion three times."
RULES = (
    {"unmask": "topk", "blocks": "whole"},
    {"unmask": "topk", "blocks": "fixed(4)"},
    {"unmask": "everything", "blocks": "fixed(8)"},
    {"unmask": "threshold(0.3)", "blocks": "fixed(8)", "cache": "dual"},
    {"unmask": "everything", "blocks": "fixed(8)", "edit": "rcr(6)"},
    {"unmask": WideIn(), "blocks": "fixed(8)", "edit": NarrowOut()},
    {"unmask": "topk", "blocks": "fixed(8)", "edit": ReopensFirst(5)},
)
BYTES = dict.fromkeys(range(10, 266), 2.0)
INFILLS = (None, None, "ab[[mask:5]]cd[[mask:6]] é", [None, 205, None, None, 179, 3, None])


@dataclass(frozen=True)
class Fails(Guide):
    """A guide that raises in one step."""

    at: int

    def __call__(self, logits, frame, params):
        if int(frame.row.step[0]) == self.at:
            raise ZeroDivisionError
        return logits


def engine_of(**traits):
    """A model with random weights, whose answers are full of broken characters."""
    spec = tiny_spec(vocab_size=1024, mask_id=4, eos_ids=(3, 8), **traits)
    return Engine(random_decoder(spec), info_of(spec), load_text(BUNDLED / "tiny"))


@pytest.fixture(scope="module")
def engine():
    return engine_of()


@pytest.fixture(scope="module")
def causal():
    """Its canvas is rounded up to whole blocks."""
    return engine_of(attention="block_causal", block_length=8)


@pytest.fixture(scope="module")
def talker():
    return dlm.load("tiny", device="cpu")


def read_all(request, data, abort_after=None):
    """The deltas of each choice, by readers that come and go in any order."""
    readers = [request.deltas(choice) for choice in range(len(request.states))]
    found, live, reads = [[] for _ in readers], set(range(len(readers))), 0
    while live:
        if reads == abort_after:
            request.abort()
        choice = data.draw(st.sampled_from(sorted(live)))
        delta = next(readers[choice], None)
        reads += 1
        if delta is None:
            live.remove(choice)
        else:
            assert delta, "an empty delta"
            found[choice].append(delta)
    return ["".join(deltas) for deltas in found]


def check_deltas(engine, options, data):
    """A request with these options, random others, stop strings of its text, and an early end."""
    infill = data.draw(st.sampled_from(INFILLS))
    if infill is None:
        options["max_new_tokens"] = data.draw(st.integers(1, 24))
    else:
        options["infill"] = infill
    options |= {
        "seed": data.draw(st.integers(0, 99)),
        "temperature": data.draw(st.sampled_from([0.0, 1.0])),
        "n": data.draw(st.integers(1, 3)),
        "logit_bias": data.draw(st.sampled_from([{}, {3: 6.0}, BYTES])),
    }
    prompt = data.draw(st.lists(st.integers(20, 1023), min_size=1, max_size=6))
    free = engine.generate(prompt, **options).text
    places = data.draw(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 4)), max_size=2))
    stops = [StopString(free[at : at + size]) for at, size in places if free[at:]]
    options["stop"] = [*stops, *data.draw(st.sampled_from([[], ["max_nfe(3)"], ["max_nfe(6)"]]))]
    try:
        request = engine.submit(prompt, **options)
    except InvalidRequest as error:
        assert "stands in `infill`" in str(error)  # noqa: PT017
        return
    if data.draw(st.booleans()):
        request.ignore_events()
    texts = read_all(request, data, data.draw(st.sampled_from([None, None, 1, 3])))
    answer = request.result()
    assert texts == [choice.text for choice in answer.choices or (answer,)]
    assert list(request.deltas(0)) == ([texts[0]] if texts[0] else []), "a reader that comes late"


@settings(max_examples=120)
@given(data=st.data())
def test_all_deltas_are_the_text(engine, data):
    check_deltas(engine, dict(data.draw(st.sampled_from(RULES))), data)


@settings(max_examples=40)
@given(data=st.data())
def test_all_deltas_are_the_text_where_the_canvas_is_longer_than_the_answer(causal, data):
    rule = data.draw(st.sampled_from(["topk", "threshold(0.3)", "everything"]))
    check_deltas(causal, {"unmask": rule}, data)


@pytest.mark.parametrize("blocks", ["fixed(2)", "fixed(4)"])
def test_deltas_come_while_the_answer_is_made(talker, blocks):
    request = talker.submit(PROMPT, max_new_tokens=32, unmask="topk", blocks=blocks)
    shown, steps = "", []
    for delta in request.deltas():
        canvas = request.states[0].canvas
        settled = canvas.ids[canvas.prompt : canvas.settled]
        shown += delta
        assert talker.text.decode(settled).startswith(shown)
        steps.append(request.states[0].ledger.nfe)
    assert shown == request.result().text
    assert len(steps) > 2
    assert steps[0] < steps[-1]


def test_a_character_is_given_when_it_is_whole(engine):
    """The bytes of a character settle one by one."""
    euro = list("€".encode())
    ids = [10 + byte for byte in euro]
    bias = {token: 900.0 - 300 * at for at, token in enumerate(ids)}
    options = {"max_new_tokens": 1, "unmask": "topk", "blocks": "fixed(1)"}
    infill = [*ids[:2], None, *ids]
    request = engine.submit([30], infill=infill, unmask="topk", logit_bias={ids[2]: 900.0})
    assert list(request.deltas()) == ["€€"]
    request = engine.submit([30], **options, logit_bias=bias)
    assert list(request.deltas()) == ["\ufffd"] == [request.result().text]


def test_a_row_that_fails_gives_what_it_has_settled_and_then_its_error(talker):
    request = talker.submit(
        PROMPT, max_new_tokens=32, unmask="topk", blocks="fixed(4)", guide=Fails(6)
    )
    found = []
    with pytest.raises(ZeroDivisionError):
        found.extend(request.deltas())
    free = talker.generate(PROMPT, max_new_tokens=32, unmask="topk", blocks="fixed(4)").text
    assert "".join(found)
    assert free.startswith("".join(found))


def test_choices_fail_and_end_apart(talker):
    request = talker.submit(PROMPT, n=2, temperature=1.0, max_new_tokens=24)
    reader = request.deltas(0)
    first = next(reader)
    talker.scheduler.abort(request.states[1])
    assert first + "".join(reader) == request.result().choices[0].text
    assert "".join(request.deltas(1)) == request.result().choices[1].text


@pytest.mark.parametrize("choice", [-1, 2, 1.0, "0", None, True])
def test_a_wrong_choice_is_refused_at_the_call(talker, choice):
    request = talker.submit(PROMPT, n=2, max_new_tokens=8)
    with pytest.raises(InvalidRequest, match="`choice`: must be an integer between 0 and 1, got"):
        request.deltas(choice)
    request.abort()


def test_without_a_tokenizer_there_are_no_deltas():
    spec = tiny_spec()
    engine = Engine(random_decoder(spec), info_of(spec))
    request = engine.submit([5, 6], max_new_tokens=4)
    with pytest.raises(InvalidRequest, match="`deltas`: need a tokenizer"):
        request.deltas()
    request.abort()

    async def main():
        async with AsyncEngine(engine) as served:
            handle = served.submit([5, 6], max_new_tokens=4)
            with pytest.raises(InvalidRequest, match="`deltas`: need a tokenizer"):
                handle.deltas()

    asyncio.run(main())
