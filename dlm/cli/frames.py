"""Frames of a canvas: one for each step of its events, shown by terminal, page and picture."""

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

DecodeToken = Callable[[int], str]


class Cell(NamedTuple):
    """One position: the text of its token (empty if open) and the confidence of its commit."""

    pos: int
    text: str
    conf: float | None
    state: State


@dataclass(frozen=True, slots=True)
class Frame:
    """The answer's part of a canvas after a step.

    borders: positions at which blocks have opened
    settled: nothing before this position changes any more
    reason: the finish reason, None before the end
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


class FrameBuilder:
    """Builds frames from the events of one row. `decode_token` gives the text of a token."""

    def __init__(self, decode_token: DecodeToken) -> None:
        self._decode_token = decode_token
        self._canvas = dlm.HostCanvas()
        self._step = 0
        self._fresh, self._reopened, self._borders = set[int](), set[int](), set[int]()

    def take(self, event: dlm.Event) -> Frame | None:
        """Apply an event; return the frame of the step before if this event begins another one."""
        frame = None
        if event.step > self._step:
            frame = self.frame() if self._fresh or self._reopened else None
            self._step, self._fresh, self._reopened = event.step, set(), set()
        self._canvas.apply(event)
        if event.type == "block":
            self._borders.add(event.pos[0])
        elif event.type in ("commit", "replace"):
            self._fresh.update(event.pos)
        elif event.type in ("remask", "renoise"):
            self._reopened.update(event.pos)
        return frame

    def frame(self) -> Frame:
        """Build the frame of the canvas as it is now."""
        canvas = self._canvas
        cells = tuple(map(self._cell, range(canvas.prompt, len(canvas.ids))))
        borders = frozenset(self._borders)
        return Frame(self._step, cells, borders, canvas.settled, canvas.reason)

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
        text = (self._decode_token(canvas.ids[pos]) or END) if shown else ""
        return Cell(pos, text, canvas.conf[pos] if shown else None, state)


def frames_of(events: Iterable[dlm.Event], decode_token: DecodeToken) -> Iterator[Frame]:
    """The frames of one row: after each step that changed something, and at the end."""
    builder = FrameBuilder(decode_token)
    for event in events:
        if (frame := builder.take(event)) is not None:
            yield frame
    yield builder.frame()
