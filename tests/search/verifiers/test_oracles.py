"""Oracles know the right answer: they must be asked for by name, and with consent."""

from __future__ import annotations

import pytest

from dlm.errors import InvalidRequest
from dlm.sandbox import best_sandbox
from dlm.search.verifiers.parsing import parse_verifier
from dlm.search.verifiers.programs import HiddenTests
from tests.search.verifiers.answers import STRANGE, scores_of, verdicts_of

PROMPT = "What is 3+4?"
CODE = 'def f(x):\n    """Double it."""\n'


def test_an_exact_answer(engine):
    texts = ["7", " 7\n", "it is 7", "8", ""]
    assert scores_of(engine, "exact_answer('7')", PROMPT, texts) == [1, 1, 1, 0, 0]
    whole = "exact_answer('7', extract='text')"
    assert scores_of(engine, whole, PROMPT, texts) == [1, 1, 0, 0, 0]
    by_number = "exact_answer('so 7', extract='number')"
    assert scores_of(engine, by_number, PROMPT, texts) == [1, 1, 1, 0, 0]


@pytest.mark.parametrize("text", STRANGE)
def test_no_text_makes_it_fall_over(engine, text):
    (verdict,), spent = verdicts_of(engine, "exact_answer('7')", PROMPT, [text])
    assert verdict.score == 0
    assert spent.errors == 0


def test_oracles_need_consent_and_mark_the_result(engine):
    with pytest.raises(InvalidRequest, match=r"exact_answer knows.*allow_oracle"):
        engine.search(PROMPT, "best_of(2)", verifier="exact_answer('7')", temperature=1.0)
    found = engine.search(
        PROMPT, "best_of(2)", verifier="exact_answer('7')", temperature=1.0, allow_oracle=True
    )
    assert found.oracle
    assert not engine.search(PROMPT, "best_of(2)", temperature=1.0).oracle


@pytest.mark.skipif(not best_sandbox().isolates, reason="nothing isolates here")
def test_hidden_tests(engine):
    pairs = HiddenTests((([1, 2], 2), ([], 0)), "f")
    texts = ["    return len(x)", "    return 2", "def f(x):\n    return len(x)", "", "nonsense ("]
    assert scores_of(engine, pairs, CODE, texts) == [1, 0, 1, 0, 0]
    code = HiddenTests("assert f([3]) == 1\nassert f([]) == 0")
    assert scores_of(engine, code, CODE, texts) == [1, 0, 1, 0, 0]


def test_what_is_wrong_with_hidden_tests_is_told():
    with pytest.raises(InvalidRequest, match="entry"):
        HiddenTests((([1], 1),))
    with pytest.raises(InvalidRequest):
        parse_verifier("hidden_tests('assert True')", trusted=False)
