"""The bands of the bundled checkpoint: where its accuracy must lie for comparisons to mean much.

A task that is solved leaves no room to see a rule win, one that is never solved none to see it
lose. So each ladder begins with sure steps and ends with unsure ones: crowded stories and long
compositions are beyond all that training showed. The figures that are compared with the bands are
in the checkpoint's `figures.json`: greedy, one token a step, blocks of 8, on the test sets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

Figures = Mapping[str, tuple[int, int]]
"""Task and rung ("math hard") -> right answers, items."""
FILE: Final = "figures.json"


class Band(NamedTuple):
    """Lowest and highest accuracy of some rungs of a task together, in percent."""

    task: str
    rungs: tuple[str, ...]
    low: float
    high: float

    @property
    def name(self) -> str:
        """Name of the band: its task and rungs."""
        return f"{self.task} {'/'.join(self.rungs)}"


BANDS: Final = (
    Band("math", ("easy",), 85, 100),
    Band("math", ("medium",), 55, 100),
    Band("math", ("hard",), 20, 100),
    Band("math", ("crowded",), 20, 90),
    Band("code", ("1-op",), 95, 100),
    Band("code", ("2-op",), 85, 100),
    Band("code", ("3-op", "4-op", "5-op"), 60, 100),
    Band("code", ("6-op", "7-op", "8-op"), 20, 90),
    Band("countdown", ("3-numbers",), 15, 80),
    Band("sudoku", ("7-holes",), 95, 100),
    Band("sudoku", ("9-holes",), 85, 100),
    Band("sudoku", ("11-holes",), 60, 95),
    Band("format", ("open",), 85, 100),
    Band("judge", ("right", "near-miss"), 75, 100),
    Band("long", ("128", "256", "512"), 80, 100),
)


class Verdict(NamedTuple):
    """A band and the score reached, in percent; None if nothing was measured."""

    band: Band
    reached: float | None

    @property
    def kept(self) -> bool:
        """True if the figure lies in the band."""
        return self.reached is not None and self.band.low <= self.reached <= self.band.high

    def __str__(self) -> str:
        band = self.band
        reached = "not measured" if self.reached is None else f"{self.reached:.0f}%"
        return f"{band.name}: {reached}, band {band.low:.0f}-{band.high:.0f}%"


def verdicts(figures: Figures) -> list[Verdict]:
    """Every band and how it was met. Balanced over its rungs: each counts the same."""
    found = []
    for band in BANDS:
        counts = [figures.get(f"{band.task} {rung}", (0, 0)) for rung in band.rungs]
        shares = [100 * right / n for right, n in counts if n]
        found.append(Verdict(band, sum(shares) / len(shares) if shares else None))
    return found


def missed(figures: Figures, task: str) -> list[str]:
    """The bands of a task that are not kept, in words."""
    return [str(v) for v in verdicts(figures) if v.band.task == task and not v.kept]


def read_figures(folder: Path) -> Figures | None:
    """The figures of a checkpoint folder; None when it has none."""
    path = folder / FILE
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return {name: (int(right), int(n)) for name, (right, n) in found.items()}
