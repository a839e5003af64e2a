"""The rules of Countdown, and the first line of an answer that breaks one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

EQUATION: Final = re.compile(r"(\d{1,4})([-+*/])(\d{1,4})=(\d{1,4})")
SHOWN: Final = 40
"""Characters of a line that words quote."""


class Broken(NamedTuple):
    """The first fault of an answer.

    held: lines before it that hold
    words: the fault
    start, end: its characters in the text (None: to the end of the canvas)
    """

    held: int
    words: str
    start: int
    end: int | None


def broken_line(text: str, numbers: Sequence[int], target: int) -> Broken | None:
    """The first fault of a chain of equations; None if each is true and of numbers that are there,
    all are used, and the last one comes to the target.
    """
    pool, wanted = list(numbers), len(numbers) - 1
    at = len(text) - len(text.lstrip())
    lines = text.strip().split("\n") if text.strip() else []
    begun = at
    for number, line in enumerate(lines):
        if number == wanted:
            words = f"There must be {wanted} lines, not {len(lines)}."
            return Broken(number, words, max(at - 1, 0), None)
        words = _fault(line.strip(), pool)
        if words:
            return Broken(number, f"Line {number + 1} is wrong: {words}", at, at + len(line))
        at += len(line) + 1
    if len(lines) < wanted:
        words = f"There must be {wanted} lines, not {len(lines)}."
        return Broken(len(lines), words, len(text.rstrip()), None)
    if pool != [target]:
        words = f"The last line must come to {target}, not {', '.join(map(str, pool))}."
        return Broken(len(lines), words, begun, len(text.rstrip()))
    return None


def _fault(line: str, pool: list[int]) -> str:
    """The fault of a line in words; empty if it holds; the pool then has its value
    in place of its numbers."""
    match = EQUATION.fullmatch(line)
    if match is None:
        shown = line if len(line) <= SHOWN else line[:SHOWN] + "..."
        return f"{shown!r} is no equation such as 2+3=5."
    left, right, value = int(match[1]), int(match[3]), int(match[4])
    for used in (left, right):
        if used not in pool:
            return f"{used} is not there to be used."
        pool.remove(used)
    found = combined(left, match[2], right)
    if found is None:
        return f"{left}/{right} is no whole number."
    if found != value:
        return f"{left}{match[2]}{right} is {found}, not {value}."
    pool.append(value)
    return ""


def combined(left: int, sign: str, right: int) -> int | None:
    """The value of an operation; None for a division that leaves a rest."""
    match sign:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
    return left // right if right and left % right == 0 else None
