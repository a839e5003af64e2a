"""A user's function judges texts; whatever it does, the search goes on and counts it."""

from __future__ import annotations

import asyncio
import functools
import threading
from math import inf

import pytest
import torch

from dlm.errors import InvalidRequest
from dlm.search import Verdict, Verifier
from dlm.search.verifiers.parsing import parse_verifier
from tests.search.verifiers.answers import STRANGE, question_of, scores_of, verdicts_of

PROMPT = "What is 3+4?"


def length(text):
    return len(text)


async def slow_length(text):
    await asyncio.sleep(0)
    return len(text)


class Scorer:
    async def __call__(self, text):
        return -len(text)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (length, [1, 3]),
        (lambda text: len(text) > 2, [0, 1]),
        (lambda text: torch.tensor(len(text) / 2), [0.5, 1.5]),
        (slow_length, [1, 3]),
        (functools.partial(slow_length), [1, 3]),
        (lambda text: slow_length(text), [1, 3]),
        (Scorer(), [-1, -3]),
        (lambda text: inf, [inf, inf]),
    ],
)
def test_the_number_that_a_function_gives_is_the_score(engine, function, expected):
    verdicts, spent = verdicts_of(engine, function, PROMPT, ["7", "abc"])
    assert [verdict.score for verdict in verdicts] == expected
    assert spent.errors == 0


def test_words_follow_the_score(engine):
    verdicts, _ = verdicts_of(engine, lambda text: (2, f"no {text}"), PROMPT, ["7"])
    assert verdicts == [Verdict(2.0, "no 7")]
    whole = Verdict(1.0, "so", ((3, 4),))
    assert verdicts_of(engine, lambda text: whole, PROMPT, ["7"])[0] == [whole]


@pytest.mark.parametrize(
    "result", [None, "7", b"7", float("nan"), (1, 2), (1, 2, 3), [], object(), torch.zeros(2)]
)
def test_a_result_that_is_no_score_fails_and_is_counted(engine, result):
    verdicts, spent = verdicts_of(engine, lambda text: result, PROMPT, ["7", "8"])
    assert [verdict.score for verdict in verdicts] == [-inf, -inf]
    assert spent.errors == 2


def test_an_exception_fails_its_answer_alone(engine):
    def judge(text):
        return 1 / len(text)

    async def later(text):
        await asyncio.sleep(0)
        return 1 / len(text)

    for function in (judge, later):
        verdicts, spent = verdicts_of(engine, function, PROMPT, ["a", "", "bb"])
        assert [verdict.score for verdict in verdicts] == [1.0, -inf, 0.5]
        assert spent.errors == 1


def test_coroutines_of_one_round_run_side_by_side(engine):
    meeting: list[asyncio.Event] = []

    async def meets(text):
        if not meeting:
            meeting.append(asyncio.Event())
        if text == "b":
            meeting[0].set()
        await asyncio.wait_for(meeting[0].wait(), 20)
        return 1

    assert scores_of(engine, meets, PROMPT, ["a", "b"]) == [1, 1]


def test_answers_of_a_search_are_judged_side_by_side_by_a_coroutine_function(engine):
    gate = threading.Barrier(4)

    async def judge(text):
        await asyncio.to_thread(gate.wait, 20)
        return len(text)

    found = engine.search(PROMPT, "best_of(4)", verifier=judge, temperature=1.0, seed=1)
    assert found.costs.verifier_errors == 0, "four are under way at once"


@pytest.mark.parametrize("text", STRANGE)
def test_a_function_sees_the_text_as_it_is(engine, text):
    seen = []
    verdicts_of(engine, lambda t: seen.append(t) or 1, PROMPT, [text])
    assert seen == [text]


def test_it_is_called_beside_the_decoding_thread(engine):
    threads, free = set(), []

    def judge(text):
        threads.add(threading.get_ident())
        free.append(engine.lock.acquire(timeout=20))
        engine.lock.release()
        return len(text)

    found = engine.search(PROMPT, "best_of(3)", verifier=judge, temperature=1.0, seed=1)
    assert threading.get_ident() not in threads
    assert free == [True] * 3
    assert found.score == max(len(c.text) for c in found.candidates)
    assert found.costs.verifier_calls == 3


def test_a_search_whose_verifier_always_fails_has_an_answer(engine):
    def judge(text):
        raise RuntimeError("no")

    found = engine.search(PROMPT, "best_of(3)", verifier=judge, temperature=1.0, seed=1)
    assert found.score == -inf
    assert found.costs.verifier_errors == found.costs.verifier_calls == 3
    assert found.best is found.candidates[0].answer


def test_the_first_failure_is_told_in_the_log(engine, caplog):
    def judge(text):
        raise RuntimeError("no such judge")

    verdicts_of(engine, judge, PROMPT, ["7", "8"])
    assert [record.getMessage() for record in caplog.records] == [
        "a verifier has failed: RuntimeError: no such judge"
    ]


def test_strangers_may_give_no_functions(engine):
    for given in (length, [length], ["confidence", length]):
        with pytest.raises(InvalidRequest) as refused:
            parse_verifier(given, trusted=False)
        assert refused.value.param == "verifier"


def test_a_function_is_given_by_its_path(engine):
    assert scores_of(engine, "operator:length_hint", PROMPT, ["7", "abc"]) == [1, 3]
    with pytest.raises(InvalidRequest):
        parse_verifier("operator:length_hint", trusted=False)
    for path in ("operator:no_such", "no_such_module:f", "collections:OrderedDict", ":f", "a:"):
        with pytest.raises(InvalidRequest):
            parse_verifier(path)


DEEP = "confidence"
for _ in range(300):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "given",
    [7, "no_such", Verifier, object(), [], ["confidence", 3], (), ["confidence"] * 17, DEEP],
)
def test_other_things_are_refused(given):
    with pytest.raises(InvalidRequest) as refused:
        parse_verifier(given)
    assert refused.value.param.startswith("verifier")


def test_a_prompt_of_ids_has_no_text_to_judge_by_rules_but_by_functions(engine):
    question = question_of(engine, [5, 6, 7])
    with pytest.raises(InvalidRequest):
        parse_verifier("rules").bind(question)
    assert parse_verifier(length).bind(question)
