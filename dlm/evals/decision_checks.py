"""Properties of decisions, measured: joint canvases, company, order of choices, shared keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dlm
from dlm.evals.decisions import Case, distribution
from dlm.evals.items import bundled_items
from dlm.evals.tasks.base import Split
from dlm.evals.tasks.sudoku import DIGITS


@dataclass(frozen=True, slots=True)
class Grid:
    """All holes of Sudokus: joint on one canvas beside one canvas a hole.

    cells: holes
    accuracy: share of the right ones, joint
    nfe_joint, nfe_independent: forwards of both
    largest: the largest difference of a probability between both
    """

    cells: int
    accuracy: float
    nfe_joint: int
    nfe_independent: int
    largest: float


def grids(engine: dlm.Engine, split: Split, limit: int) -> Grid:
    """Ask for every hole of a puzzle, with all holes open in both cases."""
    hits = cells = joint = alone = 0
    largest = 0.0
    for item in bundled_items("sudoku", split, limit):
        puzzle = item.meta["puzzle"]
        holes = [at for at, digit in enumerate(puzzle) if digit == "0"]
        values = [str(digit) for digit in DIGITS]
        asked = [dlm.Choice(str(at), "", values) for at in holes]
        words = _grid_words(engine, puzzle, {at: f"{{hole:{at}}}" for at in holes})
        together = engine.decide(item.prompt, asked, joint=True, template=words)
        joint += together.costs.nfe
        for at, question, answer in zip(holes, asked, together, strict=True):
            words = _grid_words(engine, puzzle, {at: "{hole}"})
            own = engine.decide(item.prompt, question, template=words)
            pairs = zip(distribution(own.answers[0]), distribution(answer), strict=True)
            largest = max(largest, *(abs(one - other) for one, other in pairs))
            shares = distribution(answer)
            best = values[max(range(len(values)), key=shares.__getitem__)]
            hits, cells, alone = hits + (best == item.answer[at]), cells + 1, alone + own.costs.nfe
    return Grid(cells, hits / cells, joint, alone, largest)


def _grid_words(engine: dlm.Engine, puzzle: str, holes: Mapping[int, str]) -> dlm.QuestionTemplate:
    """The template of a grid with some holes asked for and the others open."""
    pieces = ["[[mask:1]]" if digit == "0" else digit for digit in puzzle]
    form = "".join(holes.get(at, piece) for at, piece in enumerate(pieces))
    joint = ":" in "".join(holes.values())
    return dlm.QuestionTemplate(
        user="{input}\n{questions}",
        question="{instructions}",
        joint_question="{instructions}",
        **({"joint_answer": form} if joint else {"answer": form}),
        choices="values",
        end=engine.info.eos_ids[:1],
    )


@dataclass(frozen=True, slots=True)
class Company:
    """Questions about one input, asked alone and among others in another order.

    questions: number of them
    largest: largest difference of a probability
    nfe, forwards: of all questions together
    positions_alone, positions_together: computed for all questions
    """

    questions: int
    largest: float
    nfe: int
    forwards: int
    positions_alone: int
    positions_together: int


def company(engine: dlm.Engine, source: str, asked: Sequence[dlm.Question]) -> Company:
    """Ask each question alone, then all of them in reverse order."""
    alone = [engine.decide(source, question) for question in asked]
    together = engine.decide(source, asked[::-1])
    largest = max(
        abs(one - other)
        for own, answer in zip(alone, together.answers[::-1], strict=True)
        for one, other in zip(distribution(own.answers[0]), distribution(answer), strict=True)
    )
    costs = together.costs
    positions = sum(own.costs.token_forwards for own in alone)
    return Company(len(asked), largest, costs.nfe, costs.forwards, positions, costs.token_forwards)


@dataclass(frozen=True, slots=True)
class Bias:
    """Choices that are listed in the prompt, in every rotation of their order.

    n: questions
    accuracy: share of right answers in the first order
    averaged: the same where all rotations are averaged
    changed: share of questions whose answer is not the same in all rotations
    places: share of answers, over all rotations, that were listed in each place
    """

    n: int
    accuracy: float
    averaged: float
    changed: float
    places: tuple[float, ...]


def position_bias(
    engine: dlm.Engine, asked: Sequence[Case], template: dlm.QuestionTemplate, instructions: str
) -> Bias:
    """Ask choices in all rotations of their options, and averaged over them."""
    right = averaged = changed = 0
    places: list[int] = []
    for case in asked:
        assert isinstance(case.question, dlm.Choice)
        values = [option.value for option in case.question.options]
        question = replace(case.question, instructions=instructions)
        picked = []
        for first in range(len(values)):
            listed = replace(question, choices=[*values[first:], *values[:first]])
            answer = _choice(engine, case.source, listed, template=template)
            picked.append(answer.choice)
            places.append((values.index(answer.choice) - first) % len(values))
        mean = _choice(engine, case.source, question, template=template, rotations=len(values))
        right += picked[0] == values[case.right]
        averaged += mean.choice == values[case.right]
        changed += len(set(picked)) > 1
    shares = [places.count(place) / len(places) for place in range(max(places) + 1)]
    n = len(asked)
    return Bias(n, right / n, averaged / n, changed / n, tuple(shares))


def _choice(
    engine: dlm.Engine, source: str, question: dlm.Choice, **options: Any
) -> dlm.ChoiceAnswer:
    answer = engine.decide(source, question, **options).answers[0]
    assert isinstance(answer, dlm.ChoiceAnswer)
    return answer
