"""Sudoku of 4x4: how many of the empty cells are right, and whether the whole puzzle is."""

from __future__ import annotations

import re
from typing import Final

CELLS: Final = 16
SIDE: Final = 4
END_OF_TEXT: Final = "<|endoftext|>"
PLACES: Final = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"<answer>.*?```\s*([\d\s]+)```",
        r"<answer>(.*?)(?:<\|eot_id\|>|<\|endoftext\|>|</answer>)",
        r"</answer>\s*(.*?)(?:<\|eot_id\|>|<\|endoftext\|>|$)",
        r".*?(\d{16})\s*</answer>",
        r"\b(\d{16})\b",
    )
)
"""Where d1 (arXiv 2504.12216) looks for a grid, in this order."""


def grid_of(text: str) -> str:
    """`d1-sudoku-v1`: the first place that holds anything, without white space, cut or filled up
    with zeros to 16 characters; nothing if there is none.
    """
    for place in PLACES:
        found = place.search(text)
        if found is not None and found[1].strip():
            digits = re.sub(r"\s", "", found[1])
            return digits[:CELLS].ljust(CELLS, "0")
    return ""


def right_cells(grid: str, puzzle: str, solution: str) -> tuple[int, int]:
    """Number of the puzzle's empty cells that a grid fills rightly, and number of empty cells."""
    empty = [at for at in range(CELLS) if puzzle[at] == "0"]
    return sum(grid[at] == solution[at] for at in empty) if grid else 0, len(empty)


def is_valid(text: str, puzzle: str) -> bool:
    """True if a text begins with a valid grid (Dream, arXiv 2508.15487).

    That is four lines of digits that keep the given cells and hold 1 to 4 in every row, column and
    2x2 box. Characters after the length of a grid are ignored.
    """
    text = text.split(END_OF_TEXT)[0].split("\n\n")[0].replace(" ", "")
    rows = text[: CELLS + SIDE - 1].strip().split("\n")
    if [len(row) for row in rows] != [SIDE] * SIDE or not all(row.isdecimal() for row in rows):
        return False
    grid = "".join(str(int(digit)) for row in rows for digit in row)
    if any(given not in ("0", shown) for given, shown in zip(puzzle, grid, strict=True)):
        return False
    rows, columns = (
        [grid[at : at + SIDE] for at in range(0, CELLS, SIDE)],
        [grid[at::SIDE] for at in range(SIDE)],
    )
    boxes = [
        grid[at : at + 2] + grid[at + SIDE : at + SIDE + 2] for at in (0, 2, 2 * SIDE, 2 * SIDE + 2)
    ]
    return all(sorted(group) == list("1234") for group in (*rows, *columns, *boxes))


def is_solved(grid: str, puzzle: str, solution: str) -> bool:
    """True if every empty cell is right and no given one was changed."""
    right, empty = right_cells(grid, puzzle, solution)
    kept = all(given in ("0", shown) for given, shown in zip(puzzle, grid, strict=False))
    return right == empty and kept and bool(grid)
