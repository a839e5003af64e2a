"""Arithmetic facts, one equation a line: the basis of word problems."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from dlm.evals.tasks.base import Example

Fact = tuple[int, str, int]


@dataclass(frozen=True, slots=True)
class Drill:
    """`Compute 3+4, 12/4.` is answered by `3+4=7` and `12/4=3`; rungs: values of 1 to 3 digits."""

    name: str = "drill"
    canvas: int = 48

    def make(self, rng: Random) -> Example:
        """Draw three to five facts of one rung."""
        digits = rng.choice((1, 2, 2, 2, 3))
        count = rng.randint(3, 5 if digits < 3 else 4)
        facts = [draw_wide(rng) if digits == 3 else draw_fact(rng, digits) for _ in range(count)]
        questions = [f"{left}{op}{right}" for left, op, right in facts]
        lines = [f"{q}={value_of(fact)}" for q, fact in zip(questions, facts, strict=True)]
        return Example(
            task=self.name,
            rung=f"{digits}-digit",
            key=(self.name, tuple(sorted(commuted(fact) for fact in facts))),
            prompt=f"Compute {', '.join(questions)}.",
            answer="\n".join(lines),
        )

    def grade(self, example: Example, text: str) -> bool:
        """Every equation must be there, in order, with the right value."""
        return text.strip() == example.answer


def draw_fact(rng: Random, digits: int) -> Fact:
    """Draw `left op right` whose value is a whole number from 0 to 108."""
    op = rng.choice("++--**/")
    if op == "+":
        pair = (rng.randint(1, 60), rng.randint(1, 39)) if digits == 2 else two(rng, 1, 9)
    elif op == "-":
        left = rng.randint(2, 99 if digits == 2 else 18)
        return left, op, rng.randint(1, min(left, 99 if digits == 2 else 9))
    elif op == "*":
        pair = (rng.randint(2, 12), rng.randint(2, 9)) if digits == 2 else two(rng, 1, 9)
    else:
        right = rng.randint(2, 9)
        return right * rng.randint(1, 12 if digits == 2 else 9), op, right
    left, right = pair if rng.random() < 0.5 else pair[::-1]
    return left, op, right


def draw_wide(rng: Random) -> Fact:
    """Draw `left op right` whose value is a whole number of up to three digits."""
    op = rng.choice("+-*/")
    if op == "+":
        pair = (rng.randint(20, 300), rng.randint(11, 150))
    elif op == "-":
        left = rng.randint(60, 400)
        return left, op, rng.randint(11, min(left, 199))
    elif op == "*":
        pair = (rng.randint(11, 60), rng.randint(2, 9))
    else:
        right = rng.randint(2, 9)
        return right * rng.randint(8, 60), op, right
    left, right = pair if rng.random() < 0.5 else pair[::-1]
    return left, op, right


def two(rng: Random, low: int, high: int) -> tuple[int, int]:
    """Two independent whole numbers from `low` to `high`."""
    return rng.randint(low, high), rng.randint(low, high)


def value_of(fact: Fact) -> int:
    """The value of a fact; division is exact by construction."""
    left, op, right = fact
    if op == "+":
        return left + right
    if op == "-":
        return left - right
    return left * right if op == "*" else left // right


def commuted(fact: Fact) -> Fact:
    """The fact with the operands of `+` and `*` in ascending order."""
    left, op, right = fact
    return (min(left, right), op, max(left, right)) if op in "+*" else fact
