"""Warm starts: `start=` begins with an earlier answer, and `reconsider` opens what is doubtful."""

from collections import Counter

import pytest

import dlm
from dlm.core.canvas import replay
from dlm.errors import InvalidRequest
from tests.engine.test_nodes import new_engine

OLD = (
    "def compute(xs):\n"
    '    """Increase every number by 8, keep the numbers at odd positions, keep only the '
    'odd numbers, replace numbers below 3 by 3 and return the sum."""\n'
)
NEW = OLD.replace("by 8", "by 5")
OPTIONS = {"max_new_tokens": 128, "unmask": "threshold(0.9)"}


@pytest.fixture(scope="module")
def engine():
    return dlm.load("tiny")


def test_an_answer_that_still_fits_costs_one_forward(engine):
    cold = engine.generate(OLD, **OPTIONS)
    warm = engine.generate(OLD, start=cold.text, **OPTIONS)
    assert warm.text == cold.text
    assert (warm.finish_reason, warm.stats.nfe) == ("stop", 1)


def test_an_edited_prompt_costs_less_from_the_earlier_answer(engine):
    before = engine.generate(OLD, **OPTIONS)
    cold = engine.generate(NEW, **OPTIONS)
    warm = engine.generate(NEW, start=before.text, **OPTIONS)
    assert before.text != cold.text == warm.text
    assert warm.stats.nfe < cold.stats.nfe


def test_ids_of_an_earlier_canvas_do_as_well_as_its_text(engine):
    before = engine.generate(OLD, **OPTIONS)
    ids = before.canvas[len(before.prompt_ids) :]
    by_text, by_ids = (engine.generate(NEW, start=start, **OPTIONS) for start in (before.text, ids))
    assert by_text.text == by_ids.text


def test_holes_are_filled_beside_what_stays(engine):
    found = engine.generate("What is 52 + 23?", max_new_tokens=8, start="52+23=[[mask:2]]")
    assert found.text.startswith("52+23=")
    assert len(found.ids) == 8


CAUSAL = {"attention": "block_causal", "block_length": 8}
CASES = [
    ({}, {"unmask": "threshold(0.5)"}),
    ({}, {"unmask": "topk", "blocks": "whole", "temperature": 1.0}),
    ({}, {"unmask": "threshold(0.5)", "blocks": "fixed(8)", "cache": "dual(on_edit='requery')"}),
    (CAUSAL, {"unmask": "threshold(0.5)"}),
    (CAUSAL, {"unmask": "threshold(0.5)", "cache": "none"}),
]


@pytest.mark.parametrize(("changes", "options"), CASES)
def test_each_token_is_opened_once_at_most_and_the_answer_gets_full(changes, options):
    engine, spy = new_engine(changes)
    start = [(7 * at) % 50 + 3 for at in range(20)]
    found = engine.generate(
        [7, 3, 9], max_new_tokens=24, start=start, edit="reconsider(0.9)", trace=True, **options
    )
    opened = Counter(at for e in found.trace if e.type == "remask" for at in e.pos)
    assert opened
    assert max(opened.values()) == 1
    assert len(opened) <= len(start)
    canvas = replay(found.trace)[0]
    assert tuple(canvas.ids) == found.canvas
    if found.finish_reason == "length":
        assert len(found.ids) == 24
    assert found.stats.nfe == spy.forwards
    kept = [at for at in range(3, 23) if at not in opened]
    assert [found.canvas[at] for at in kept] == [start[at - 3] for at in kept]


def test_choices_and_batch_mates_do_not_matter():
    start = [(5 * at) % 50 + 3 for at in range(16)]
    options = {"max_new_tokens": 16, "start": start, "temperature": 1.0, "unmask": "threshold(0.5)"}
    answers = []
    for rows in (1, 8):
        engine, _ = new_engine({}, max_rows=rows)
        answers.append([c.ids for c in engine.generate([4, 5], n=4, **options).choices])
    assert answers[0] == answers[1]
    assert len(set(answers[0])) > 1


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"start": ""}, "start"),
        ({"start": {0: "a"}}, "start"),
        ({"start": [3] * 9}, "max_new_tokens"),
        ({"start": [99]}, "start"),
        ({"start": [3], "infill": [4, None]}, "start"),
        ({"start": [3], "unmask": "topk(steps=4)"}, "edit"),
        ({"start": [3], "edit": "reconsider(2)"}, "edit"),
    ],
)
def test_what_cannot_begin_an_answer_is_refused(options, param):
    engine, _ = new_engine({})
    with pytest.raises(InvalidRequest) as caught:
        engine.generate([4, 5], max_new_tokens=8, **options)
    assert caught.value.param == param


def test_a_node_begins_with_one_of_the_two():
    engine, _ = new_engine({})
    with pytest.raises(InvalidRequest, match="give one of them"):
        engine.start([4, 5], [3, None], start=[3])
