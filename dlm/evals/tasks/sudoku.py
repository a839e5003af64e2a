"""4x4 Sudoku with one solution: global constraints, where the order of filling matters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from dlm.evals.tasks.base import Example

SIDE: Final = 4
CELLS: Final = SIDE * SIDE
DIGITS: Final = (1, 2, 3, 4)
FEWEST_HOLES: Final = 5
MOST_HOLES: Final = 11


@dataclass(frozen=True, slots=True)
class Sudoku:
    """Four rows of digits with `0` for a hole; rungs: up to 7, 9 or 11 holes."""

    name: str = "sudoku"
    canvas: int = 24

    def make(self, rng: Random) -> Example:
        """Draw a grid and dig holes in it as long as the solution stays the only one."""
        wanted = rng.randint(FEWEST_HOLES, MOST_HOLES)
        puzzle, solution = draw_puzzle(rng, wanted)
        rung = next(top for top in (7, 9, 11) if wanted <= top)
        return Example(
            task=self.name,
            rung=f"{rung}-holes",
            key=(self.name, canonical(puzzle)),
            prompt="Sudoku:\n" + as_text(puzzle),
            answer=as_text(solution),
            meta={"puzzle": as_text(puzzle)},
        )

    def grade(self, example: Example, text: str) -> bool:
        """The solution is unique, so the text must be it."""
        return text.strip() == example.answer


def as_text(cells: Sequence[int]) -> str:
    """Sixteen cells as four lines of four digits."""
    digits = "".join(map(str, cells))
    return "\n".join(digits[start : start + SIDE] for start in range(0, CELLS, SIDE))


def canonical(cells: Sequence[int]) -> str:
    """The puzzle with its digits renamed in order of appearance; holes stay 0."""
    names: dict[int, int] = {0: 0}
    return "".join(str(names.setdefault(digit, len(names))) for digit in cells)


def solutions(cells: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """All completions of a grid, in ascending order."""
    if 0 not in cells:
        yield tuple(cells)
        return
    hole = list(cells).index(0)
    seen = {cells[peer] for peer in peers(hole)}
    for digit in DIGITS:
        if digit not in seen:
            yield from solutions([*cells[:hole], digit, *cells[hole + 1 :]])


def peers(cell: int) -> Iterator[int]:
    """The cells that share a row, a column or a 2x2 box with `cell`, itself included."""
    row, column = divmod(cell, SIDE)
    for other in range(CELLS):
        other_row, other_column = divmod(other, SIDE)
        same_box = (other_row // 2, other_column // 2) == (row // 2, column // 2)
        if other_row == row or other_column == column or same_box:
            yield other


def is_unique(cells: Sequence[int]) -> bool:
    """True if a puzzle has exactly one solution."""
    found = solutions(cells)
    return next(found, None) is not None and next(found, None) is None


def draw_grid(rng: Random) -> list[int]:
    """One of the 288 full grids, each equally likely: 12 completions of any first row."""
    first_row = rng.sample(DIGITS, SIDE)
    return list(rng.choice(list(solutions([*first_row, *[0] * (CELLS - SIDE)]))))


def draw_puzzle(rng: Random, holes: int) -> tuple[list[int], list[int]]:
    """A puzzle with exactly `holes` holes and one solution, and that solution."""
    while True:
        solution = draw_grid(rng)
        puzzle, dug = list(solution), 0
        for cell in rng.sample(range(CELLS), CELLS):
            if dug == holes:
                return puzzle, solution
            puzzle[cell] = 0
            if is_unique(puzzle):
                dug += 1
            else:
                puzzle[cell] = solution[cell]
