"""The rules of Countdown, and the first line of an answer that breaks one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

EQUATION: Final = re.compile(r"(\d{1,4})([-+*/])(\d{1,4})(?:=(\d{1,4})?)?")
SHOWN: Final = 40
"""Characters of a line that words quote."""
VALUE: Final = 0.5
"""Share of a line that holds where its value alone is wrong or missing."""


class Broken(NamedTuple):
    """The first fault of an answer.

    held: lines before it that hold, and half a line where its value alone is wrong or missing
    words: the fault
    start, end: its characters in the text (None: to the end of the canvas)
    """

    held: float
    words: str
    start: int
    end: int | None


class Fault(NamedTuple):
    """The fault of a line.

    words: it
    start: its first character in the line
    sound: share of the line that holds
    """

    words: str
    start: int
    sound: float


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
        fault = _fault(line, pool, target if number == wanted - 1 else None)
        if fault is not None:
            words = f"Line {number + 1} is wrong: {fault.words}"
            return Broken(number + fault.sound, words, at + fault.start, at + len(line))
        at += len(line) + 1
    if len(lines) < wanted:
        words = f"There must be {wanted} lines, not {len(lines)}."
        return Broken(len(lines), words, len(text.rstrip()), None)
    if pool != [target]:
        words = f"The last line must come to {target}, not {', '.join(map(str, pool))}."
        return Broken(len(lines), words, begun, len(text.rstrip()))
    return None


def _fault(line: str, pool: list[int], target: int | None) -> Fault | None:
    """The fault of a line, None if it holds; the pool then has its value in place of its numbers.

    A wrong value is to blame alone, a missing one from the end of the line on, and a number that is
    not there from it on. With a `target` no other value would help: where the numbers do not come
    to it all of the line is to blame.
    """
    match = EQUATION.fullmatch(line.strip())
    if match is None:
        shown = line.strip()
        shown = shown if len(shown) <= SHOWN else shown[:SHOWN] + "..."
        return Fault(f"{shown!r} is no equation such as 2+3=5.", 0, 0.0)
    indent = len(line) - len(line.lstrip())
    left, right = int(match[1]), int(match[3])
    for used, group in ((left, 1), (right, 3)):
        if used not in pool:
            return Fault(f"{used} is not there to be used.", indent + match.start(group), 0.0)
        pool.remove(used)
    found = combined(left, match[2], right)
    if found is None:
        return Fault(f"{left}/{right} is no whole number.", indent + match.start(2), 0.0)
    if match[4] is not None and found == int(match[4]):
        pool.append(found)
        return None
    told = f"{left}{match[2]}{right} is {found}, not "
    if target is not None and found != target:
        return Fault(f"{told}{target}.", indent, 0.0)
    if match[4] is None:
        return Fault(f"{line.strip()!r} has no value.", len(line.rstrip()), VALUE)
    return Fault(f"{told}{match[4]}.", indent + match.start(4), VALUE)


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
