"""Countdown and Sudoku are checked by rules that stand in the prompt, with words and places."""

from __future__ import annotations

import random

import pytest

from dlm.errors import InvalidRequest
from dlm.evals.graders.grid import is_valid
from dlm.evals.tasks.countdown import Countdown, reaches
from dlm.evals.tasks.sudoku import Sudoku
from dlm.search.verifiers.countdown import broken_line
from dlm.search.verifiers.parsing import parse_verifier
from dlm.search.verifiers.sudoku import faults_of, groups_that_hold
from tests.search.verifiers.answers import (
    STRANGE,
    answer_of,
    pointed,
    question_of,
    scores_of,
    verdicts_of,
)

PROMPT = "Countdown: use 5 2 20 to make 13."
GRID = "Sudoku:\n0200\n0040\n3000\n0403"
SOLVED = "4231\n1342\n3124\n2413"


@pytest.mark.parametrize(
    ("text", "score", "words", "blamed"),
    [
        ("20-5=15\n15-2=13", 1, "", ""),
        ("  20-5=15\n15-2=13\n", 1, "", ""),
        ("20-5=14\n14-2=13", 1 / 6, "Line 1 is wrong: 20-5 is 15, not 14.", "14"),
        ("20-5=15\n15-3=12", 1 / 3, "Line 2 is wrong: 3 is not there to be used.", "3=12"),
        ("20-5=15\n15-2=12", 1 / 2, "Line 2 is wrong: 15-2 is 13, not 12.", "12"),
        ("20-5=15\n15+2=13", 1 / 3, "Line 2 is wrong: 15+2 is 17, not 13.", "15+2=13"),
        ("20-5=15\n15+2=16", 1 / 3, "Line 2 is wrong: 15+2 is 17, not 13.", "15+2=16"),
        ("20-5=15\n 15*2=", 1 / 3, "Line 2 is wrong: 15*2 is 30, not 13.", "15*2="),
        ("20-5=13\n13-2=13", 1 / 6, "Line 1 is wrong: 20-5 is 15, not 13.", "13"),
        ("20+5=25\n25+2=27", 2 / 3, "The last line must come to 13, not 27.", "20+5=25\n25+2=27"),
        ("20-5=15", 1 / 3, "There must be 2 lines, not 1.", ""),
        ("20-5=15\n15-2=13\n13-0=13", 2 / 3, "There must be 2 lines, not 3.", "\n13-0=13"),
        ("20-5=15\nten", 1 / 3, "Line 2 is wrong: 'ten' is no equation such as 2+3=5.", "ten"),
        ("20/3=7\n7+5=12", 0, "Line 1 is wrong: 3 is not there to be used.", "3=7"),
        ("5/2=2\n20-2=18", 0, "Line 1 is wrong: 5/2 is no whole number.", "/2=2"),
        ("20-5", 1 / 6, "Line 1 is wrong: '20-5' has no value.", ""),
        ("20-5=15\n15-2=", 1 / 2, "Line 2 is wrong: '15-2=' has no value.", ""),
        ("20-5=15\n3-", 1 / 3, "Line 2 is wrong: '3-' is no equation such as 2+3=5.", "3-"),
        ("", 0, "There must be 2 lines, not 0.", ""),
    ],
)
def test_a_countdown_is_told_its_first_broken_line(engine, text, score, words, blamed):
    question = question_of(engine, PROMPT)
    answer = answer_of(question, text, canvas=32)
    (verdict,) = parse_verifier("countdown").bind(question).score([answer], question)
    assert (verdict.score, verdict.feedback) == (pytest.approx(score), words)
    assert pointed(question, answer, verdict) == blamed


@pytest.mark.parametrize("text", ["", "20-5=15"])
def test_an_answer_that_is_too_short_points_to_its_end(engine, text):
    question = question_of(engine, PROMPT)
    answer = answer_of(question, text, canvas=32)
    (verdict,) = parse_verifier("rules").bind(question).score([answer], question)
    ((start, end),) = verdict.spans
    assert end == len(answer.canvas)
    assert start == len(answer.prompt_ids) + len(answer.ids), "at the end id"


def test_the_rules_of_countdown_are_those_of_its_grader():
    rng, right = random.Random(3), 0
    for number in range(4000):
        example = Countdown().make(rng)
        numbers, target = example.meta["numbers"], example.meta["target"]
        text = example.answer
        for _ in range(rng.choice((0, 1, 1, 2))):
            at = rng.randrange(len(text) + 1)
            put = rng.choice("0123456789+-*/= \n٣")
            text = text[:at] + put * rng.randint(0, 1) + text[at + rng.randint(0, 1) :]
        found = broken_line(text, numbers, target)
        assert (found is None) == reaches(text, numbers, target), (number, text)
        right += found is None
    assert 800 < right < 3600


def test_the_rules_of_sudoku_are_those_of_both_graders():
    rng, right = random.Random(5), 0
    for _ in range(1500):
        example = Sudoku().make(rng)
        puzzle, text = example.meta["puzzle"], example.answer
        for _ in range(rng.choice((0, 1, 2))):
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice("1234") * rng.randint(0, 1) + text[at + 1 :]
        rows = puzzle.split("\n")
        faults = faults_of(text, rows)
        assert (not faults) == (text.strip() == example.answer)
        assert (not faults) == is_valid(text, puzzle.replace("\n", ""))
        assert (groups_that_hold(text, rows) == 1) == (not faults)
        right += not faults
    assert 300 < right < 1200


@pytest.mark.parametrize(
    ("text", "words", "blamed"),
    [
        (SOLVED, "", ""),
        ("4231\n1342\n3124\n2414", "Row 4, column 4 must stay 3. Column 4 holds 4 twice.", "4"),
        ("4231\n1342\n3124\n2413\n1", "There must be 4 rows, not 5.", "\n1"),
        ("4231\n1342\n3124", "There must be 4 rows, not 3.", ""),
        ("4231\n13x2\n3124\n2413", "Row 2 must be 4 digits from 1 to 4.", "13x2"),
        ("4251\n1342\n3124\n2413", "Row 1 must be 4 digits from 1 to 4.", "4251"),
        ("", "Row 1 must be 4 digits from 1 to 4.", ""),
    ],
)
def test_a_sudoku_is_told_its_faults(engine, text, words, blamed):
    question = question_of(engine, GRID)
    answer = answer_of(question, text, canvas=24)
    (verdict,) = parse_verifier("sudoku").bind(question).score([answer], question)
    assert verdict.feedback.startswith(words)
    assert bool(verdict.feedback) == bool(words)
    assert blamed in pointed(question, answer, verdict)
    assert (verdict.score == 1) == (text == SOLVED)


def test_cells_that_repeat_a_digit_are_pointed_to_and_given_ones_are_not(engine):
    question = question_of(engine, GRID)
    answer = answer_of(question, "4231\n1342\n3124\n2213", canvas=24)
    other = answer_of(question, "3231\n1342\n3124\n2413", canvas=24)
    changed, repeated = parse_verifier("sudoku").bind(question).score([answer, other], question)
    assert "Row 4, column 2 must stay 4." in changed.feedback
    assert "Row 1 holds 3 twice." in repeated.feedback
    assert "Column 1 holds 3 twice." in repeated.feedback
    first = len(question.ids)
    blamed = {at - first for start, end in repeated.spans for at in range(start, end)}
    assert blamed == {0, 2, 6}, "row 1 and box 1 (digits are tokens); the one of row 3 was given"
    assert repeated.score < 1
    assert changed.score < 1


def test_grids_of_nine_cells_a_side():
    side = 9
    rows = [
        "".join(str((3 * (r % 3) + r // 3 + c) % 9 + 1) for c in range(side)) for r in range(side)
    ]
    puzzle = ["0" * 9 if r % 2 else rows[r] for r in range(side)]
    assert faults_of("\n".join(rows), puzzle) == []
    wrong = [*rows[:-2], rows[-2][::-1], rows[-1]]
    assert faults_of("\n".join(wrong), puzzle)


@pytest.mark.parametrize("text", STRANGE)
@pytest.mark.parametrize("prompt", [PROMPT, GRID])
def test_no_text_makes_rules_fall_over(engine, prompt, text):
    (verdict,), spent = verdicts_of(engine, "rules", prompt, [text])
    assert 0 <= verdict.score < 1
    assert verdict.feedback
    assert spent.errors == spent.forwards == spent.nfe == 0


def test_the_puzzle_is_the_last_one_of_the_prompt(engine):
    shots = f"{PROMPT}\n20-5=15\n15-2=13\n\nCountdown: use 1 2 3 to make 6."
    assert scores_of(engine, "rules", shots, ["1+2=3\n3+3=6", "20-5=15\n15-2=13"])[0] == 1
    messages = [{"role": "user", "content": GRID}]
    assert scores_of(engine, "rules", messages, [SOLVED]) == [1]


@pytest.mark.parametrize(
    "prompt", ["What is 2+2?", "Countdown: use 5 to make 5.", "Sudoku:\n12\n34", [5, 6, 7]]
)
def test_a_prompt_without_a_puzzle_is_refused(engine, prompt):
    with pytest.raises(InvalidRequest) as refused:
        parse_verifier("rules").bind(question_of(engine, prompt))
    assert refused.value.param == "verifier"


def test_a_search_ends_with_the_first_answer_that_keeps_the_rules(engine):
    found = engine.search(PROMPT, "best_of(64)", verifier="rules", temperature=1.5, seed=3)
    assert found.reason == "target"
    assert reaches(found.text, [5, 2, 20], 13)
    assert len(found.candidates) < 64
