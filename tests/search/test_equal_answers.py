"""Equal answers of a search are judged once by verifiers that read nothing but the answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from math import inf
from threading import Lock
from typing import Any, ClassVar

import pytest

import dlm
from dlm.sandbox import best_sandbox
from dlm.search import Verdict, Verifier
from dlm.search.names import VERIFIERS
from dlm.search.verifier import ask
from dlm.search.verifiers.parsing import parse_verifier
from tests.search.searches import CAUSAL, new_engine, require_empty
from tests.search.verifiers.answers import answer_of, question_of

OPTIONS = {"max_new_tokens": 8, "temperature": 0.25, "unmask": "threshold(0.5)", "seed": 3}
MANY = "best_of(24, width=12)"


@dataclass(frozen=True)
class Noting(Verifier):
    """Writes down the answers that it is asked about; several threads ask it."""

    judged: list[Any] = field(default_factory=list)
    price: float = 0.0
    lock: Any = field(default_factory=Lock)

    blocks: ClassVar[bool] = True
    by_text: ClassVar[bool] = True

    @property
    def workers(self):
        return 4

    @property
    def cost(self):
        return self.price

    def score(self, answers, question):
        question.spent.add(nfe=self.price * len(answers))
        with self.lock:
            self.judged.extend(answer.canvas for answer in answers)
        return [Verdict(float(sum(answer.ids) % 5)) for answer in answers]


@dataclass(frozen=True)
class Moody(Noting):
    """The same, but that it may judge an answer otherwise each time."""

    by_text: ClassVar[bool] = False


@dataclass(frozen=True)
class Failing(Noting):
    """Raises for every answer."""

    def score(self, answers, question):
        Noting.score(self, answers, question)
        raise ValueError


def searched(verifier, **options):
    engine, _ = new_engine(**options)
    found = engine.search([7, 3, 9], MANY, verifier=verifier, **OPTIONS)
    require_empty(engine)
    return found


@pytest.mark.parametrize("attention", ["full", CAUSAL["attention"]])
def test_a_verdict_counts_for_all_equal_answers(attention):
    noting, moody = Noting(price=2.0), Moody(price=2.0)
    found, plain = (searched(one, attention=attention) for one in (noting, moody))
    canvases = {one.answer.canvas for one in found.candidates}
    assert 1 < len(canvases) < 24, "some answers are equal"
    assert Counter(noting.judged) == Counter(canvases)
    assert Counter(moody.judged) == Counter(one.answer.canvas for one in plain.candidates)
    assert [one.score for one in found.candidates] == [one.score for one in plain.candidates]
    assert found.costs.verifier_calls == plain.costs.verifier_calls == 24
    assert found.costs.verifier_nfe == 2 * len(canvases)
    assert plain.costs.verifier_nfe == 2 * 24


def test_another_search_judges_anew():
    noting = Noting()
    once = len({one.answer.canvas for one in searched(noting).candidates})
    searched(noting)
    assert len(noting.judged) == 2 * once


def test_parts_of_an_ensemble_remember_each_for_itself():
    noting, moody = Noting(), Moody()
    found = searched([noting, moody, "confidence"])
    canvases = [one.answer.canvas for one in found.candidates]
    assert Counter(noting.judged) == Counter(set(canvases))
    assert Counter(moody.judged) == Counter(canvases)


def test_every_equal_answer_that_fails_is_counted_and_asked_about_again():
    failing = Failing()
    found = searched(failing)
    assert found.costs.verifier_errors == found.costs.verifier_calls == 24
    assert {one.score for one in found.candidates} == {-inf}
    assert len(failing.judged) >= len({one.answer.canvas for one in found.candidates})


def test_functions_of_a_user_are_asked_each_time():
    texts: list[str] = []
    engine = dlm.load("tiny", device="cpu")
    engine.search("1+1=", "best_of(5)", verifier=lambda text: texts.append(text) or 0.0, **OPTIONS)
    assert len(texts) == 5 > len(set(texts))


# the registered ones

COUNTDOWN = "Countdown: use 3 7 2 to make 19."
CODE = 'def f(x):\n    """\n    >>> f(2)\n    3\n    """\n'
UNSAFE = not best_sandbox().isolates
CASES = [
    ("rules", COUNTDOWN, "3*7=22\n22-2=19"),
    ("countdown", COUNTDOWN, "3*7=21\n21-3=19"),
    ("sudoku", "Sudoku:\n1000\n0000\n0000\n0000", "1234\n3412\n2143\n4322"),
    (f"tests(unsafe={UNSAFE})", CODE, "    y = x +\n    return y"),
    ("hidden_tests('assert f(1) == 2')", CODE, "    return x + 1"),
    ("self_verify", COUNTDOWN, "3*7=21\n21-2=19"),
    ("self_verify(of='equations')", COUNTDOWN, "3*7=22\n21-2=19"),
    ("pll", COUNTDOWN, "3*7=21\n21-2=19"),
    ("causal_lm('tiny-ar')", COUNTDOWN, "3*7=21\n21-2=19"),
]


def test_all_that_say_so_are_tried():
    named = {name for name in VERIFIERS.names() if VERIFIERS.load(name).by_text}
    assert named == {spec.partition("(")[0] for spec, _, _ in CASES} | {"reward_model"}


@pytest.fixture(scope="module")
def tiny():
    return dlm.load("tiny", device="cpu")


@pytest.mark.parametrize(("spec", "prompt", "text"), CASES)
def test_a_verdict_hangs_on_the_answer_alone(tiny, spec, prompt, text):
    question = question_of(tiny, prompt)
    verifier = parse_verifier(spec).bind(question)
    answer = answer_of(question, text, canvas=48)
    other = replace(answer, logprobs=(-2.0,) * len(answer.ids))
    (first,) = verifier.score([answer], question)
    once = question.spent.nfe
    (second,) = verifier.score([other], question)
    assert first.score == pytest.approx(second.score, abs=1e-6)
    assert first[1:] == second[1:]
    asked = question_of(tiny, prompt)
    verdicts = [*ask(verifier, [answer, other], asked), *ask(verifier, [other], asked)]
    assert [verdict.score for verdict in verdicts] == [pytest.approx(first.score, abs=1e-6)] * 3
    assert {verdict[1:] for verdict in verdicts} == {first[1:]}
    assert asked.spent.nfe == pytest.approx(once)


@pytest.mark.parametrize(("spec", "prompt", "text"), CASES[:4])
def test_spans_follow_an_answer_to_a_longer_prompt(tiny, spec, prompt, text):
    question = question_of(tiny, prompt)
    verifier = parse_verifier(spec).bind(question)
    answer = answer_of(question, text, canvas=64)
    more = (*question.ids, *question.ids)
    moved = replace(answer, prompt_ids=more, canvas=(*question.ids, *answer.canvas))
    expected = [*verifier.score([answer], question), *verifier.score([moved], question)]
    assert expected[0].spans != expected[1].spans
    asked = [*ask(verifier, [answer], question), *ask(verifier, [moved, answer], question)]
    assert asked == [*expected, expected[0]]
