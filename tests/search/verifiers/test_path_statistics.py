"""Path statistics come out of what decoding has written down, at no forward."""

from __future__ import annotations

from math import exp, inf, log, nan

import pytest

from dlm.errors import InvalidRequest
from dlm.search.verifiers.free import entropy
from dlm.search.verifiers.parsing import parse_verifier
from tests.search.verifiers.answers import answer_of, question_of

PROMPT = "What is 3+4?"


def scored(engine, spec, **fields):
    question = question_of(engine, PROMPT)
    answer = answer_of(question, "7", **fields)
    (verdict,) = parse_verifier(spec).bind(question).score([answer], question)
    assert question.spent.forwards == question.spent.errors == 0
    return verdict.score


@pytest.mark.parametrize(
    ("spec", "logs", "score"),
    [
        ("confidence", (-1.0, -3.0), -2.0),
        ("confidence", (-1.0, nan, -3.0), -2.0),
        ("confidence(variance=0.5)", (-1.0, -3.0), -2.5),
        ("confidence", (), -inf),
        ("confidence(variance=1)", (nan,), -inf),
        ("path_logprob", (-1.0, nan, -3.0), -4.0),
        ("path_logprob", (), -inf),
    ],
)
def test_log_probabilities_of_commits(engine, spec, logs, score):
    assert scored(engine, spec, logprobs=logs) == pytest.approx(score)


def test_entropy_of_commits(engine):
    sure, even = ((5, 0.0),), ((5, log(0.5)), (6, log(0.5)))
    rest = ((5, log(0.7)),)
    assert entropy(sure) == 0
    assert entropy(even) == pytest.approx(log(2))
    assert entropy(rest) == pytest.approx(-0.7 * log(0.7) - 0.3 * log(0.3))
    assert entropy(()) == 0
    score = scored(engine, "path_entropy", top_logprobs=(sure, even, ()))
    assert score == pytest.approx(-log(2) / 2), "a token that was given has none"
    assert scored(engine, "path_entropy", top_logprobs=()) == -inf


def test_the_request_keeps_what_path_entropy_reads(engine):
    found = engine.search(
        PROMPT, "best_of(3)", verifier="path_entropy", temperature=1.5, max_new_tokens=24
    )
    for candidate in found.candidates:
        answer = candidate.answer
        assert len(answer.top_logprobs[0]) == 20
        by_hand = []
        for top in answer.top_logprobs:
            known = [exp(value) for _, value in top]
            whole = [*known, max(1 - sum(known), 0)]
            by_hand.append(-sum(p * log(p) for p in whole if p > 1e-12))
        assert candidate.score == pytest.approx(-sum(by_hand) / len(by_hand), abs=1e-9)
    assert found.costs.nfe == found.costs.row_forwards


def test_what_a_verifier_needs_wins_over_the_request(engine):
    found = engine.search(
        PROMPT, "best_of(2)", verifier="path_entropy", temperature=1.0, top_logprobs=0
    )
    assert all(c.score > -inf for c in found.candidates)
    plain = engine.search(PROMPT, "best_of(2)", temperature=1.0)
    assert plain.best.top_logprobs == ()


def test_the_score_of_a_search_is_the_probability_of_its_path(engine):
    found = engine.search(
        PROMPT, "best_of(4)", verifier="path_logprob", temperature=1.5, max_new_tokens=24
    )
    assert [c.score for c in found.candidates] == pytest.approx(
        [sum(c.answer.logprobs) for c in found.candidates]
    )


def test_a_negative_weight_is_refused():
    with pytest.raises(InvalidRequest):
        parse_verifier("confidence(variance=-1)")
