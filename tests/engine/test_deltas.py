"""Text deltas: together they are the text of the answer, however it is decoded and however it ends,
and nothing that was given is taken back.
"""

import asyncio
import re
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlm
from dlm import AsyncEngine, Engine, Guide, InvalidRequest, StopString
from dlm.engine.generation import hole_spans
from dlm.engine.load import BUNDLED
from dlm.text import load_text
from dlm.unmasking.edit.wino import NarrowOut
from dlm.unmasking.unmask.wide_in import WideIn
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec
from tests.rules.reopening import ReopensFirst
from tests.text.folders import FOLDERS

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
BYTES = dict.fromkeys(range(10, 100), 2.0)
INFILLS = (None, None, "wo [[mask:5]] lion[[mask:6]] a", [None, 25, None, None, 32, 3, None])
REFUSED = re.compile("stands in `infill`|tokenizer cannot write")
LAYOUTS = ("tiny", "json", "json, metaspace always", "json, word pieces")


@dataclass(frozen=True)
class Fails(Guide):
    """A guide that raises in one step."""

    at: int

    def __call__(self, logits, frame, params):
        if int(frame.row.step[0]) == self.at:
            raise ZeroDivisionError
        return logits


def engine_of(text, **traits):
    """A model with random weights, whose answers are full of broken characters."""
    control, size = text.vocabulary.control, len(text.vocabulary.pieces())
    spec = tiny_spec(vocab_size=size, mask_id=control["<|mask|>"], eos_ids=text.end_ids(), **traits)
    return Engine(random_decoder(spec), info_of(spec), text)


@pytest.fixture(scope="module", params=LAYOUTS)
def engine(request, tmp_path_factory):
    """Tokenizers that join tokens, begin a text and spell bytes in different ways."""
    folder = BUNDLED / request.param
    if request.param in FOLDERS:
        FOLDERS[request.param](folder := tmp_path_factory.mktemp("layout"))
    return engine_of(load_text(folder))


@pytest.fixture(scope="module")
def causal():
    """Its canvas is rounded up to whole blocks."""
    text = load_text(BUNDLED / "tiny")
    return engine_of(text, attention="block_causal", block_length=8)


@pytest.fixture(scope="module")
def talker():
    return dlm.load("tiny", device="cpu")


def read_all(request, data, readers, abort_after=None):
    """The deltas of each reader, which come and go in any order."""
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
        "logit_bias": data.draw(st.sampled_from([{}, {engine.info.eos_ids[0]: 6.0}, BYTES])),
    }
    prompt = data.draw(st.lists(st.integers(20, 99), min_size=1, max_size=6))
    places = data.draw(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 4)), max_size=2))
    budget = data.draw(st.sampled_from([[], ["max_nfe(3)"], ["max_nfe(6)"]]))
    try:
        free = engine.generate(prompt, **options).text
        stops = [StopString(free[at : at + size]) for at, size in places if free[at:]]
        request = engine.submit(prompt, **options, stop=[*stops, *budget])
    except InvalidRequest as error:
        assert REFUSED.search(str(error))  # noqa: PT017
        return
    if data.draw(st.booleans()):
        request.ignore_events()
    holes = len(hole_spans(request.states[0].pinned)) if infill else 0
    every, of_holes = range(len(request.states)), range(holes)
    readers = [request.deltas(choice) for choice in every]
    readers += [request.deltas(choice, hole) for choice in every for hole in of_holes]
    texts = read_all(request, data, readers, data.draw(st.sampled_from([None, None, 1, 3])))
    answer = request.result()
    choices = answer.choices or (answer,)
    late = ["".join(request.deltas(choice, hole)) for choice in every for hole in of_holes]
    assert texts[: len(choices)] == [choice.text for choice in choices]
    assert texts[len(choices) :] == [hole for choice in choices for hole in choice.holes]
    assert late == texts[len(choices) :], "readers of holes that come late"
    assert list(request.deltas(0)) == ([texts[0]] if texts[0] else []), "a reader that comes late"


@settings(max_examples=30)
@given(data=st.data())
def test_all_deltas_are_the_text(engine, data):
    check_deltas(engine, dict(data.draw(st.sampled_from(RULES))), data)


@settings(max_examples=25)
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


def test_a_character_is_given_when_it_is_whole(talker):
    """Its bytes settle one by one."""
    first, second, third = (10 + byte for byte in "€".encode())
    options = {"unmask": "topk", "blocks": "fixed(1)"}
    request = talker.submit(
        [30],
        infill=[first, None, third, 40, first, second, None],
        **options,
        logit_bias={second: 900.0},
    )
    inside = talker.text.decode([40])
    assert list(request.deltas()) == [f"€{inside}", "₂"], "bytes E2 82 are held back"
    assert request.result().text == f"€{inside}₂"


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
    late = request.deltas()
    assert next(late) == "".join(found)
    with pytest.raises(ZeroDivisionError):
        next(late)


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
