"""Is this answer right? Arithmetic and word problems with a candidate, to be worked again and then
answered `Yes` or `No`.

Half of the candidates are wrong, by one slip each: a digit that is off, a forgotten carry, two
digits swapped, another operation, a skipped step. The own working comes before the verdict because
without it a model of this size does not leave chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from dlm.evals.tasks.base import Example
from dlm.evals.tasks.drill import commuted, draw_fact, draw_wide, value_of
from dlm.evals.tasks.math_sheet import Work, apply
from dlm.evals.tasks.math_stories import EASY, MEDIUM_STORIES

FACT_SHARE: Final = 0.6
Question = tuple[Any, str, list[str]]
"""Structure, wording and the equations of the right answer, of which the last gives the result."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Rungs: `right` and `near-miss` candidates, half of each."""

    name: str = "judge"
    canvas: int = 48

    def make(self, rng: Random) -> Example:
        """Draw a question and its right answer, and spoil the answer in half of the cases."""
        structure, question, lines = fact(rng) if rng.random() < FACT_SHARE else story(rng)
        right = rng.random() < 0.5
        candidate = lines if right else near_miss(rng, lines)
        return Example(
            task=self.name,
            rung="right" if right else "near-miss",
            key=(self.name, structure, tuple(int(line.split("=")[1]) for line in candidate)),
            prompt=f"{question}\nAnswer: {', '.join(candidate)}\nIs it correct?",
            answer="\n".join([*lines, verdict(lines, candidate)]),
            meta={"lines": lines, "candidate": candidate},
        )

    def grade(self, example: Example, text: str) -> bool:
        """The last word must be the verdict, whatever the working."""
        words = text.split()
        return bool(words) and words[-1] == ("Yes" if example.rung == "right" else "No")


def verdict(lines: Sequence[str], candidate: Sequence[str]) -> str:
    """The own result beside the candidate's, and whether they are the same."""
    own, claimed = (worked[-1].split("=")[1] for worked in (lines, candidate))
    return f"{own}={claimed}? {'Yes' if own == claimed else 'No'}"


def fact(rng: Random) -> Question:
    """One equation of the drills."""
    drawn = rng.choice((draw_fact(rng, 1), draw_fact(rng, 2), draw_fact(rng, 2), draw_wide(rng)))
    left, op, right = structure = commuted(drawn)
    line = f"{left}{op}{right}={value_of(drawn)}"
    return structure, f"Compute {left}{op}{right}.", [line]


def story(rng: Random) -> Question:
    """A word problem of one to three steps with its worked steps."""
    work = Work()
    question, result = rng.choice(EASY + MEDIUM_STORIES)(rng, work)
    return result.tree, question, work.lines


def near_miss(rng: Random, lines: Sequence[str]) -> list[str]:
    """The lines with one slip: without the last one, or with another operation or value in it."""
    *before, last = lines
    question, value = last.split("=")
    slip = rng.random()
    if before and slip < 0.25 and not before[-1].endswith(f"={value}"):
        return before
    mistaken = other_operation(question)
    if slip < 0.4 and not mistaken.endswith(f"={value}"):
        return [*before, mistaken]
    return [*before, f"{question}={rng.choice(slips(question, int(value)))}"]


def operands(question: str) -> tuple[int, str, int]:
    """An equation's left side taken apart."""
    op = next(sign for sign in "+-*/" if sign in question)
    left, right = map(int, question.split(op))
    return left, op, right


def other_operation(question: str) -> str:
    """A true equation of the same numbers with another operation."""
    left, op, right = operands(question)
    if op in "+/":
        left, right = max(left, right), min(left, right)
    other = "-" if op in "+/" else "+"
    return f"{left}{other}{right}={apply(left, other, right)}"


def slips(question: str, value: int) -> list[int]:
    """The wrong values of an equation that one slip gives, none of them negative or right."""
    left, op, right = operands(question)
    swapped = str(value)[-2:][::-1]
    found = {value + 1, value - 1, value + 10, value - 10, int(str(value)[:-2] + swapped)}
    if op in "+-":
        found.add(without_carry(left, op, right))
        found.add(apply(left, "-" if op == "+" else "+", right))
    elif op == "*":
        found |= {left + right, value + left, value - right}
    else:
        found.add(left - right)
    return sorted(wrong for wrong in found if wrong >= 0 and wrong != value)


def without_carry(left: int, op: str, right: int) -> int:
    """Column by column: sums without their carry, differences of the larger and the smaller."""
    width = len(str(max(left, right)))
    columns = zip(str(left).zfill(width), str(right).zfill(width), strict=True)
    digits = [(int(a) + int(b)) % 10 if op == "+" else abs(int(a) - int(b)) for a, b in columns]
    return int("".join(map(str, digits)))
