"""`feedback`: the verifier's words come into the prompt, and the span it points to is redone."""

from dataclasses import dataclass

import pytest

import dlm
from dlm.errors import InvalidRequest
from dlm.search.policies.feedback import Feedback
from dlm.search.verifier import Verdict, Verifier
from tests.search.test_neighbours import searched


@dataclass(frozen=True, slots=True)
class Points(Verifier):
    """Blames the third to the fifth token of an answer, in words."""

    words: str = ""

    def score(self, answers, question):
        first = len(question.ids) + 2
        return [Verdict(0.0, self.words, ((first, first + 3),)) for _ in answers]


@pytest.fixture(scope="module")
def engine():
    return dlm.load("tiny")


def test_words_come_into_the_prompt_and_only_what_is_blamed_is_redone(engine):
    found = engine.search(
        "What is 3 + 4?",
        Feedback(rounds=2, fraction=0.01),
        verifier=Points("Too large."),
        temperature=1.0,
        max_new_tokens=12,
    )
    first, second, third = (one.answer for one in found.candidates)
    assert engine.text.decode(second.prompt_ids) != engine.text.decode(first.prompt_ids)
    assert "Too large." in engine.text.decode(second.prompt_ids)
    assert second.prompt_ids == third.prompt_ids  # words of the last answer alone
    old, new = (one.canvas[len(one.prompt_ids) :] for one in (first, second))
    assert [at for at, (a, b) in enumerate(zip(old, new, strict=True)) if a != b] <= [2, 3, 4]
    assert second.stats.nfe <= 3


def test_without_words_a_prompt_of_ids_will_do():
    found, _ = searched(Feedback(rounds=3, words=False), target=99.0)
    assert len(found.candidates) == 4
    assert len({one.answer.prompt_ids for one in found.candidates}) == 1


def test_words_after_a_prompt_of_ids_are_refused(engine):
    with pytest.raises(InvalidRequest, match="text or messages"):
        engine.search([7, 8, 9], "feedback", verifier=Points("No."), temperature=1.0)


@pytest.mark.parametrize("attention", ["full", "block_causal"])
def test_a_correction_fits_into_the_length_that_was_asked_for(attention):
    found, _ = searched(
        Feedback(rounds=3, words=False), attention=attention, max_new_tokens=13, target=99.0
    )
    assert len(found.candidates) == 4
    assert all(len(one.answer.ids) <= 13 for one in found.candidates)
