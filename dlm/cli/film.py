"""A film of a canvas: its events as shots, one a step, which terminal, page and picture show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, Literal, NamedTuple

import dlm

State = Literal["given", "open", "fresh", "kept", "reopened", "dead"]
"""What a cell shows: given, open, filled in this step, filled before, taken back in this step, or
left open by a row that has ended.
"""
END: Final = "∎"
"""Stands for a token without text: an end of the answer, most often."""

Spell = Callable[[int], str]


class Cell(NamedTuple):
    """One position: the text of its token (empty where it is open) and how sure its commit was."""

    pos: int
    text: str
    conf: float | None
    state: State


@dataclass(frozen=True, slots=True)
class Shot:
    """The answer's part of a canvas after a step.

    `borders`: positions where blocks have opened · `settled`: nothing before this position changes
    any more · `reason`: why the row ended, None while it has not.
    """

    step: int
    cells: tuple[Cell, ...]
    borders: frozenset[int]
    settled: int
    reason: str | None

    @property
    def tokens(self) -> int:
        """Number of filled positions before the first end token."""
        answer = takewhile(lambda cell: cell.text != END, self.cells)
        return sum(cell.state in ("fresh", "kept") for cell in answer)


class Film:
    """Turns the events of one row into shots. `spell` gives the text of a token."""

    def __init__(self, spell: Spell) -> None:
        self._spell = spell
        self._canvas = dlm.HostCanvas()
        self._step = 0
        self._fresh, self._reopened, self._borders = set[int](), set[int](), set[int]()

    def take(self, event: dlm.Event) -> Shot | None:
        """Apply an event; the shot of the step before, where this event begins another one."""
        shot = None
        if event.step > self._step:
            shot = self.shot() if self._fresh or self._reopened else None
            self._step, self._fresh, self._reopened = event.step, set(), set()
        self._canvas.apply(event)
        if event.type == "block":
            self._borders.add(event.pos[0])
        elif event.type in ("commit", "replace"):
            self._fresh.update(event.pos)
        elif event.type in ("remask", "renoise"):
            self._reopened.update(event.pos)
        return shot

    def shot(self) -> Shot:
        """The canvas as it is now."""
        canvas = self._canvas
        cells = tuple(map(self._cell, range(canvas.prompt, len(canvas.ids))))
        borders = frozenset(self._borders)
        return Shot(self._step, cells, borders, canvas.settled, canvas.reason)

    def _cell(self, pos: int) -> Cell:
        canvas, kind = self._canvas, self._canvas.kinds[pos]
        state: State = "kept"
        if kind >= dlm.Kind.MASK:
            state = "reopened" if pos in self._reopened else "open"
        elif kind == dlm.Kind.PAD:
            state = "dead"
        elif kind == dlm.Kind.PROMPT:
            state = "given"
        elif pos in self._fresh:
            state = "fresh"
        shown = state in ("given", "kept", "fresh")
        text = (self._spell(canvas.ids[pos]) or END) if shown else ""
        return Cell(pos, text, canvas.conf[pos] if shown else None, state)


def shots_of(events: Iterable[dlm.Event], spell: Spell) -> Iterator[Shot]:
    """The shots of one row: after each step that changed something, and at the end."""
    film = Film(spell)
    for event in events:
        if (shot := film.take(event)) is not None:
            yield shot
    yield film.shot()
