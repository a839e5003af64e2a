"""Readers of the text of a row while it is decoded. They wait for nothing.

They may be used in another thread than the one that drives the row.
"""

from __future__ import annotations

from dataclasses import dataclass

from dlm.config.checks import is_integer
from dlm.core import Kind
from dlm.engine.generation import answer_of, draft_text, hole_ids, hole_spans, text_of
from dlm.engine.row import RowState
from dlm.errors import InvalidRequest, shown
from dlm.text import IncrementalDecoder, Text

MASK = "\u2591"
"""The sign of an open position."""


def check_choice(reader: str, choice: int, count: int, text: Text | None) -> Text:
    """The tokenizer for reading a choice, of `count`, as text. Raises `InvalidRequest`."""
    if text is None:
        raise InvalidRequest(
            reader, "need a tokenizer, and this model came without one: read `events`"
        )
    if not is_integer(choice) or not 0 <= choice < count:
        raise InvalidRequest(
            "choice", f"must be an integer between 0 and {count - 1}, got {shown(choice)}"
        )
    return text


class DeltaReader:
    """Reads the text of a row's answer in pieces, which all together are its `Generation.text`.

    `hole`: reads that hole of `infill` alone, of which all pieces together are
    `Generation.holes[hole]`. `ended`: nothing follows, which may be so for a hole before the row
    ends. Raises `InvalidRequest` for a hole that the row does not have.
    """

    def __init__(self, state: RowState, text: Text, hole: int | None = None) -> None:
        self._state, self._text, self._hole, self.ended = state, text, hole, False
        start, end = (0, state.bound.length) if hole is None else _span(state, hole)
        self._next = len(state.prompt) + start  # the first position that was not read
        self._start, self._end = self._next, len(state.prompt) + end
        self._decoder = IncrementalDecoder(text, inside=bool(state.pinned))
        self._sent = 0

    @property
    def has_news(self) -> bool:
        """True if positions have settled that were not read, or if the row has ended."""
        return self._state.done or min(self._state.canvas.settled, self._end) > self._next

    def read(self) -> str:
        """The text that is new; `ended` after the last of it.

        Raises the error of a row that has failed, after the text that it has settled.
        """
        state, canvas, delta = self._state, self._state.canvas, ""
        done, settled = state.done, min(canvas.settled, self._end)  # in this order
        failed = done and state.error is not None
        if (done and not failed) or (self._hole is not None and settled == self._end):
            self.ended, delta = True, self._whole()[self._sent :]
        elif settled > self._next:
            fresh, _ = answer_of(canvas, settled, state.end_ids, self._next)
            self._next, delta = settled, self._decoder.feed(fresh)
        elif state.error is not None:
            self.ended = True
            raise state.error
        self._sent += len(delta)
        return delta

    def _whole(self) -> str:
        """All of the text, of a row that has ended or a hole that has settled."""
        state = self._state
        if self._hole is None:
            return text_of(state, self._text)[0] or ""
        if not state.done:
            ids, _ = answer_of(state.canvas, self._end, state.end_ids, self._start)
            return self._text.decode_inside(ids)
        _, answer = text_of(state, self._text)
        return self._text.decode_inside(hole_ids(state, len(answer))[self._hole])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The answer of a row as it stands.

    text: with a sign for each open position, up to the first end id; that of its `Generation` once
        the row has ended.
    step: forwards of the row so far.
    filled: share of the positions to fill that hold a token, from 0 to 1.
    done: the row has ended.
    """

    text: str
    step: int
    filled: float
    done: bool


def snapshot_of(state: RowState, text: Text, mask: str = MASK) -> Snapshot:
    """The answer of a row as it stands, between two of its steps."""
    start, end = len(state.prompt), state.limit
    with state.lock:
        ids, kinds = state.canvas.ids[start:end], state.canvas.kinds[start:end]
        step, done = state.ledger.nfe, state.done
    written = text_of(state, text)[0] if done else draft_text(state, ids, kinds, text, mask)
    to_fill = sum(token is None for token in state.pinned) if state.pinned else end - start
    still_open = sum(kind > Kind.COMMITTED for kind in kinds) if kinds else to_fill
    return Snapshot(written or "", step, (to_fill - still_open) / to_fill, done)


class SnapshotReader:
    """Reads the answer of a row as it stands; what lies between two reads is skipped.

    `ended`: the last one was read.
    """

    def __init__(self, state: RowState, text: Text, mask: str = MASK) -> None:
        self._state, self._text, self._mask, self.ended = state, text, mask, False
        self._step = -1  # of the last one

    @property
    def has_news(self) -> bool:
        """True if the row has its canvas and has taken steps since the last read, or has ended."""
        state = self._state
        return state.done or (bool(state.canvas.kinds) and state.ledger.nfe > self._step)

    def read(self) -> Snapshot:
        """The newest snapshot. Raises the error of a row that has failed."""
        found = snapshot_of(self._state, self._text, self._mask)
        self._step, self.ended = found.step, found.done
        if found.done and self._state.error is not None:
            raise self._state.error
        return found


def _span(state: RowState, hole: int) -> tuple[int, int]:
    """The bounds of a hole of `infill` in the answer."""
    spans = hole_spans(state.pinned) if state.pinned else []
    if not spans:
        raise InvalidRequest("hole", "needs a request with `infill`")
    if not is_integer(hole) or not 0 <= hole < len(spans):
        raise InvalidRequest(
            "hole", f"must be an integer between 0 and {len(spans) - 1}, got {shown(hole)}"
        )
    return spans[hole]
