"""Reach a target with every number used once: arithmetic that needs search, not recall."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import Final

from dlm.evals.tasks.base import Example

EQUATION: Final = re.compile(r"(\d{1,4})([-+*/])(\d{1,4})=(\d{1,4})")
LARGEST_NUMBER: Final = 20
LARGEST_VALUE: Final = 200
LARGEST_TARGET: Final = 99
FOUR_NUMBERS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Countdown:
    """`Countdown: use 3 7 2 to make 19.`: one equation a line; rungs: 3 or 4 numbers."""

    name: str = "countdown"
    canvas: int = 32

    def make(self, rng: Random) -> Example:
        """Draw numbers by combining them at random until a legal target comes out."""
        count = 4 if rng.random() < FOUR_NUMBERS else 3
        numbers, lines, target = draw_solution(rng, count)
        while not 1 <= target <= LARGEST_TARGET:
            numbers, lines, target = draw_solution(rng, count)
        rng.shuffle(numbers)
        return Example(
            task=self.name,
            rung=f"{count}-numbers",
            key=(self.name, tuple(sorted(numbers)), target),
            prompt=f"Countdown: use {' '.join(map(str, numbers))} to make {target}.",
            answer="\n".join(lines),
            meta={"numbers": numbers, "target": target},
        )

    def grade(self, example: Example, text: str) -> bool:
        """Any true chain of equations that uses each number once and ends in the target."""
        return reaches(text, example.meta["numbers"], example.meta["target"])


def draw_solution(rng: Random, count: int) -> tuple[list[int], list[str], int]:
    """Numbers, the equations that join them, and the value reached (0 if a step is illegal)."""
    numbers = [rng.randint(1, LARGEST_NUMBER) for _ in range(count)]
    pool = list(numbers)
    lines: list[str] = []
    while len(pool) > 1:
        left, right = rng.sample(pool, 2)
        op = rng.choice("++--**/")
        value = combine(left, op, right)
        trivial = op in "*/" and 1 in (left, right)
        if value is None or trivial or not 1 <= value <= LARGEST_VALUE:
            return numbers, lines, 0
        lines.append(f"{left}{op}{right}={value}")
        pool.remove(left)
        pool.remove(right)
        pool.append(value)
    return numbers, lines, pool[0]


def combine(left: int, op: str, right: int) -> int | None:
    """The value of one operation, or None for an inexact division."""
    if op == "+":
        return left + right
    if op == "-":
        return left - right
    if op == "*":
        return left * right
    return left // right if right and left % right == 0 else None


def reaches(text: str, numbers: list[int], target: int) -> bool:
    """True if the equations in `text` hold, use each number once and end in `target`."""
    pool = list(numbers)
    lines = text.strip().split("\n")
    if len(lines) != len(numbers) - 1:
        return False
    for line in lines:
        match = EQUATION.fullmatch(line.strip())
        if match is None:
            return False
        left, right, value = int(match[1]), int(match[3]), int(match[4])
        for used in (left, right):
            if used not in pool:
                return False
            pool.remove(used)
        if combine(left, match[2], right) != value:
            return False
        pool.append(value)
    return pool == [target]
