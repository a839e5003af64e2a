"""Decisions on the bundled tasks: questions with known answers, beside answers as text.

judge: is a worked answer right? A predicate; the working stays open on the canvas
sudoku: the digit of one cell, a choice of four; the other cells stay open
sums: the value of one equation, a choice of up to five values of several lengths
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import fmean
from typing import Any, Final

import dlm
from dlm.errors import InvalidRequest
from dlm.evals.calibration import Record
from dlm.evals.items import bundled_items
from dlm.evals.tasks.base import Split
from dlm.evals.tasks.judge import operands, slips
from dlm.evals.tasks.sudoku import DIGITS

SEED: Final = 0
NEW_TOKENS: Final = 48


@dataclass(frozen=True, slots=True)
class Case:
    """A question whose answer is known.

    source: the input
    question: about it
    template: the words of the task's own format
    right: number of the right label
    prompt: the same question for an answer as text
    grade: tells if a text is the right answer
    """

    source: str
    question: dlm.Question
    template: dlm.QuestionTemplate
    right: int
    prompt: str
    grade: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Decided:
    """Answers to cases: records, masses of labels, and costs of all."""

    records: Sequence[Record]
    masses: Sequence[float | None]
    nfe: int
    forwards: int
    token_forwards: int
    seconds: float
    answers: Sequence[dlm.Answer] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Written:
    """Answers to cases as text: share of right ones, and costs of all."""

    n: int
    accuracy: float
    nfe: int
    token_forwards: int
    seconds: float


def cases(task: str, engine: dlm.Engine, split: Split, limit: int | None = None) -> list[Case]:
    """The cases of a task, in the order of its items. Raises `InvalidRequest` for another one."""
    known = {"judge": judge_cases, "sudoku": sudoku_cases, "sums": sum_cases}
    if task not in known:
        raise InvalidRequest("task", f"must be one of {', '.join(known)}, got {task!r}")
    if engine.text is None:
        raise InvalidRequest("model", "has no tokenizer")
    return known[task](engine, engine.text, split, limit)


def own_words(engine: dlm.Engine, answer: str) -> dlm.QuestionTemplate:
    """The format that the bundled models were trained on: no list of labels, an end of text."""
    return dlm.QuestionTemplate(
        user="{input}\n{questions}",
        question="{instructions}",
        answer=answer,
        choices="values",
        end=engine.info.eos_ids[:1],
    )


def judge_cases(engine: dlm.Engine, text: dlm.Text, split: Split, limit: int | None) -> list[Case]:
    """Candidates to judge. The working is open, as long as the candidate's; its result is compared
    with the candidate's, which is known.
    """
    found = []
    for item in bundled_items("judge", split, limit):
        source, asked = item.prompt.rsplit("\n", 1)
        claimed = item.meta["candidate"][-1].split("=")[1]
        working = "\n".join([*item.meta["candidate"], claimed])
        answer = f"[[mask:{len(text.encode_inside(working))}]]={claimed}? {{hole}}"
        right = 0 if item.rung == "right" else 1
        question, words = dlm.Predicate(None, asked), own_words(engine, answer)
        found.append(Case(source, question, words, right, item.prompt, item.grade))
    return found


def sudoku_cases(engine: dlm.Engine, text: dlm.Text, split: Split, limit: int | None) -> list[Case]:
    """One cell of each puzzle, drawn among its holes."""
    rng, found = Random(SEED), []
    for item in bundled_items("sudoku", split, limit):
        puzzle = item.meta["puzzle"]
        cell = rng.choice([at for at, digit in enumerate(puzzle) if digit == "0"])
        pieces = ["[[mask:1]]" if digit == "0" else digit for digit in puzzle]
        pieces[cell] = "{hole}"
        question = dlm.Choice(None, "", [str(digit) for digit in DIGITS])
        right = DIGITS.index(int(item.answer[cell]))
        words = own_words(engine, "".join(pieces))
        grade = CellIs(cell, item.answer[cell])
        found.append(Case(item.prompt, question, words, right, item.prompt, grade))
    return found


@dataclass(frozen=True, slots=True)
class CellIs:
    """Tells if a text has a character at a place."""

    cell: int
    digit: str

    def __call__(self, text: str) -> bool:
        """True if it has."""
        return text.strip()[self.cell : self.cell + 1] == self.digit


def sum_cases(engine: dlm.Engine, text: dlm.Text, split: Split, limit: int | None) -> list[Case]:
    """The last equation of each drill, the others given: the right value, near ones, one a digit
    longer and one a digit shorter, in a drawn order.
    """
    rng, found = Random(SEED), []
    for item in bundled_items("drill", split, limit):
        *others, line = item.answer.split("\n")
        left, value = line.split("=")
        near = slips(left, int(value))
        wrong = {str(other) for other in rng.sample(near, min(2, len(near)))}
        wrong |= {f"{value}{operands(left)[0] % 10}", value[:-1] or f"{value}0"} - {value}
        values = [value, *sorted(wrong)]
        rng.shuffle(values)
        words = own_words(engine, "\n".join([*others, f"{left}={{hole}}"]))
        question, right = dlm.Choice(None, "", values), values.index(value)
        found.append(Case(item.prompt, question, words, right, item.prompt, EndsWith(line)))
    return found


@dataclass(frozen=True, slots=True)
class EndsWith:
    """Tells if the last line of a text is a given one."""

    wanted: str

    def __call__(self, text: str) -> bool:
        """True if it is."""
        return text.strip().split("\n")[-1] == self.wanted


def decided(engine: dlm.Engine, asked: Sequence[Case], **options: Any) -> Decided:
    """The answers of `Engine.decide`, one case at a time; seconds of the processor.

    `options` go before the case's own template.
    """
    begun, found = time.process_time(), []
    for case in asked:
        given = {"template": case.template} | options
        found.append(engine.decide(case.source, case.question, **given))
    seconds = time.process_time() - begun
    answers = [decisions.answers[0] for decisions in found]
    records = [
        Record(distribution(answer), case.right)
        for answer, case in zip(answers, asked, strict=True)
    ]
    costs = [decisions.costs for decisions in found]
    return Decided(
        records,
        [answer.label_mass for answer in answers],
        sum(cost.nfe for cost in costs),
        sum(cost.forwards for cost in costs),
        sum(cost.token_forwards for cost in costs),
        seconds,
        answers,
    )


def written(engine: dlm.Engine, asked: Sequence[Case], **options: Any) -> Written:
    """The same cases answered as text, one at a time; seconds of the processor."""
    begun, right, nfe, positions = time.process_time(), 0, 0, 0
    for case in asked:
        answer = engine.generate(case.prompt, max_new_tokens=NEW_TOKENS, **options)
        right += case.grade(answer.text or "")
        nfe, positions = nfe + answer.stats.nfe, positions + answer.stats.token_forwards
    seconds = time.process_time() - begun
    return Written(len(asked), right / len(asked), nfe, positions, seconds)


def distribution(answer: dlm.Answer) -> list[float]:
    """The probabilities of an answer's labels; of a predicate true and false."""
    match answer:
        case dlm.PredicateAnswer():
            return [answer.probability, 1 - answer.probability]
        case dlm.ChoiceAnswer():
            return [p for _, p in answer.probabilities]
        case dlm.ScoreAnswer():
            return list(answer.probabilities)


def mean_mass(masses: Sequence[float | None]) -> float | None:
    """The mean of the label masses; None where there are none."""
    known = [mass for mass in masses if mass is not None]
    return fmean(known) if known else None
