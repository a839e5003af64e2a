"""Places in a text and positions of the canvas: every span spells what it is of."""

from __future__ import annotations

import random

import pytest

import dlm
from dlm.search.spans import Places, merged
from tests.search.verifiers.answers import answer_of, question_of


@pytest.fixture(scope="module")
def question():
    return question_of(dlm.load("tiny", device="cpu"), "What is 3+4?")


def test_a_span_spells_its_characters_and_no_token_more(question):
    rng, text = random.Random(1), question.engine.text
    for _ in range(200):
        words = "".join(rng.choice("ab 0+=\n\u00e9\u4e16\U0001f642") for _ in range(20))
        answer = answer_of(question, words, canvas=80)
        first, places = len(question.ids), Places(answer, text)
        start = rng.randrange(20)
        end = rng.randint(start + 1, 20)
        low, high = places.span(start, end)

        def spelled(count, answer=answer):
            return text.decode_inside(answer.ids[:count])

        assert words.startswith(spelled(low - first)[:start])
        assert len(spelled(low - first).rstrip("\ufffd")) <= start
        assert spelled(high - first).startswith(words[:end])
        assert not spelled(high - first - 1).startswith(words[:end]), "no token more"
        assert places.rest(start) == (low, len(answer.canvas))


def test_spans_stay_on_the_canvas(question):
    answer = answer_of(question, "", ended=False)
    places = Places(answer, question.engine.text)
    length = len(answer.canvas)
    assert places.span(0, 5) == places.rest(3) == (length, length)
    assert merged([places.span(0, 5)]) == ()


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], ()),
        ([(3, 5), (1, 2)], ((1, 2), (3, 5))),
        ([(1, 3), (3, 5), (4, 9)], ((1, 9),)),
        ([(1, 9), (2, 3), (9, 9)], ((1, 9),)),
        ([(4, 4)], ()),
    ],
)
def test_spans_that_touch_are_one(spans, expected):
    assert merged(spans) == expected
