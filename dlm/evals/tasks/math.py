"""Word problems and expressions with worked steps, one equation a line, and a boxed result.

A template draws its numbers, works the problem out on a `Work` sheet and words the question. A
third of the longer stories get a sentence with a number that has nothing to do with the question.
Half of the hard stories that training does not show get three of them, more than any it shows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import Final

from dlm.evals.tasks.base import Example, split_of
from dlm.evals.tasks.math_expressions import HARD_EXPRESSIONS, MEDIUM_EXPRESSIONS
from dlm.evals.tasks.math_hard import HARD_STORIES
from dlm.evals.tasks.math_sheet import PEOPLE, Template, Work
from dlm.evals.tasks.math_stories import EASY, MEDIUM_STORIES

MEDIUM: Final[tuple[Template, ...]] = MEDIUM_STORIES + MEDIUM_EXPRESSIONS
HARD: Final[tuple[Template, ...]] = HARD_STORIES + HARD_EXPRESSIONS
DISTRACTED: Final[frozenset[Template]] = frozenset(MEDIUM_STORIES + HARD_STORIES)
DISTRACTED_SHARE: Final = 1 / 3
CROWDED_SHARE: Final = 1 / 2
CROWD: Final = 3
RUNG_WEIGHTS: Final = (0.25, 0.50, 0.25)
BOXED: Final = re.compile(r"\\boxed\{([^{}]*)\}")
SENTENCE: Final = re.compile(r"(?<=\.) ")
MONTHS: Final = ("May", "June", "July")


@dataclass(frozen=True, slots=True)
class Math:
    """Rungs: easy (one step), medium (two or three), hard (four or more), crowded (hard stories
    with three irrelevant sentences).
    """

    name: str = "math"
    canvas: int = 80

    def make(self, rng: Random) -> Example:
        """Draw a rung, then one of its templates."""
        (templates,) = rng.choices((EASY, MEDIUM, HARD), weights=RUNG_WEIGHTS)
        work = Work()
        template = rng.choice(templates)
        question, result = template(rng, work)
        steps, key = len(work.lines), (self.name, result.tree)
        rung = "easy" if steps == 1 else "medium" if steps <= 3 else "hard"
        if template in HARD_STORIES and split_of(key) != "train" and rng.random() < CROWDED_SHARE:
            rung = "crowded"
            for _ in range(CROWD):
                question = distract(rng, question)
        elif template in DISTRACTED and rng.random() < DISTRACTED_SHARE:
            question = distract(rng, question)
        return Example(
            task=self.name,
            rung=rung,
            key=key,
            prompt=question,
            answer="\n".join([*work.lines, f"\\boxed{{{result.value}}}"]),
            meta={"gold": str(result.value), "steps": steps},
        )

    def grade(self, example: Example, text: str) -> bool:
        """The last `\\boxed{}` must hold the result; the steps are free."""
        boxes = BOXED.findall(text)
        return bool(boxes) and boxes[-1].strip() == example.meta["gold"]


def distract(rng: Random, story: str) -> str:
    """The story with one irrelevant sentence somewhere before its question."""
    number = rng.randint(2, 60)
    name = rng.choice([name for name, _ in PEOPLE if name in story] or [PEOPLE[0][0]])
    extra = rng.choice(
        (
            f"{name} is {number} years old.",
            f"{name} lives at number {number}.",
            f"The shop has {number} windows.",
            f"The bus has {number} seats.",
            f"It is {rng.choice(MONTHS)} {rng.randint(1, 30)}.",
            f"{name} reads {number} pages.",
        )
    )
    sentences = SENTENCE.split(story)
    sentences.insert(rng.randrange(len(sentences)), extra)
    return " ".join(sentences)
