"""The rules of Sudoku, and the cells of an answer that break one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import isqrt
from typing import NamedTuple

Cell = tuple[int, int]


class Fault(NamedTuple):
    """A fault of an answer.

    words: the fault
    start, end: its characters in the text (None: to the end of the canvas)
    """

    words: str
    start: int
    end: int | None


def faults_of(text: str, puzzle: Sequence[str]) -> list[Fault]:
    """The faults of a grid; none if it keeps the given cells and holds each digit once in each row,
    column and box. Of a text that is no grid the first fault of its form alone.
    """
    rows, starts = _lines(text)
    form = _form_fault(text, rows, starts, len(puzzle))
    if form is not None:
        return [form]
    faults = [
        Fault(f"Row {r + 1}, column {c + 1} must stay {puzzle[r][c]}.", start, start + 1)
        for r, c in product(range(len(puzzle)), repeat=2)
        if puzzle[r][c] not in ("0", rows[r][c])
        for start in (starts[r] + c,)
    ]
    for name, cells in _groups(len(puzzle)):
        digits = [rows[r][c] for r, c in cells]
        for (r, c), digit in zip(cells, digits, strict=True):
            if digits.count(digit) > 1 and puzzle[r][c] == "0":
                at = starts[r] + c
                words = f"{name} holds {digit} {_times(digits.count(digit))}."
                faults.append(Fault(words, at, at + 1))
    return faults


def groups_that_hold(text: str, puzzle: Sequence[str]) -> float:
    """The share of rows, columns and boxes that hold every digit, less than 1 for a faulty grid."""
    rows, starts = _lines(text)
    side = len(puzzle)
    if _form_fault(text, rows, starts, side) is not None:
        return 0.0
    right = sum(len({rows[r][c] for r, c in cells}) == side for _, cells in _groups(side))
    return right / (3 * side + bool(faults_of(text, puzzle)))


def _lines(text: str) -> tuple[list[str], list[int]]:
    """The lines of a text without white space around it, and the place at which each begins."""
    rows = text.strip().split("\n")
    starts = [len(text) - len(text.lstrip())]
    for row in rows[:-1]:
        starts.append(starts[-1] + len(row) + 1)
    return rows, starts


def _form_fault(text: str, rows: list[str], starts: list[int], side: int) -> Fault | None:
    """The first line that is not `side` digits from 1 on; None if all are, and `side` of them."""
    digits = "123456789"[:side]
    for number, (row, start) in enumerate(zip(rows[:side], starts, strict=False)):
        if len(row) != side or any(cell not in digits for cell in row):
            words = f"Row {number + 1} must be {side} digits from 1 to {side}."
            if not row or len(rows) == 1:
                return Fault(words, start, None)
            return Fault(words, start, start + len(row))
    if len(rows) != side:
        end = len(text.rstrip()) if len(rows) < side else starts[side] - 1
        return Fault(f"There must be {side} rows, not {len(rows)}.", end, None)
    return None


def _groups(side: int) -> Iterator[tuple[str, list[Cell]]]:
    """The rows, columns and boxes with their names."""
    box = isqrt(side)
    for n in range(side):
        yield f"Row {n + 1}", [(n, k) for k in range(side)]
        yield f"Column {n + 1}", [(k, n) for k in range(side)]
        top, left = n // box * box, n % box * box
        yield f"Box {n + 1}", [(top + k // box, left + k % box) for k in range(side)]


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"
