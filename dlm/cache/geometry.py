"""Segments that several policies plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dlm.core import NO_POSITIONS, ForwardPlan, HostRows, Ints, Phase, Rows, Segment, span


@dataclass(frozen=True, slots=True)
class RowBounds:
    """The bounds of one row: its live blocks as one span, and the clean blocks before them.

    `start:end` covers the live blocks; `opening`: the last of them is new; `age`: steps since the
    last one opened; `clean`: spans of filled blocks that wait for their store, left to right;
    `stored`: leading positions whose keys are final; `step`: steps of the row.
    """

    row: int
    prompt: int
    length: int
    start: int
    end: int
    opening: bool
    age: int
    clean: tuple[tuple[int, int], ...]
    stored: int
    step: int

    @property
    def predicted(self) -> Ints:
        """The positions of the live blocks that are not the prompt's."""
        return span(max(self.start, self.prompt), self.end)


def bounds_of(host: HostRows) -> Iterator[RowBounds]:
    """The bounds of every row, read from the host's mirror."""
    tables = zip(
        *(getattr(host.blocks, n).tolist() for n in ("start", "end", "phase", "step")), strict=True
    )
    numbers = zip(
        *(getattr(host, n).tolist() for n in ("prompt", "length", "stored", "step")), strict=True
    )
    for row, ((starts, ends, phases, steps), (prompt, length, stored, step)) in enumerate(
        zip(tables, numbers, strict=True)
    ):
        blocks = list(zip(starts, ends, phases, strict=True))
        live = [(s, e, p) for s, e, p in blocks if p <= Phase.OPEN]
        ages = [age for age, phase in zip(steps, phases, strict=True) if phase <= Phase.OPEN]
        yield RowBounds(
            row,
            prompt,
            length,
            start=min((s for s, _, _ in live), default=length),
            end=max((e for _, e, _ in live), default=length),
            opening=any(p == Phase.OPENING for _, _, p in live),
            age=min(ages, default=0),
            clean=tuple((s, e) for s, e, p in blocks if p == Phase.CLEAN),
            stored=stored,
            step=step,
        )


def shift_queries(b: RowBounds, predict: Ints, queries: Ints, key_end: int) -> list[Segment]:
    """Read-only queries that a shifted family needs: the left neighbours of what is predicted,
    where they are not among `queries`.
    """
    left = predict[predict > 0] - 1
    missing = left[~np.isin(left, queries)]
    if len(missing) == 0:
        return []
    return [Segment(b.row, 0, missing, key_end, write=False, predict=NO_POSITIONS)]


def window(bounds: RowBounds, key_end: int, info: ShiftInfo) -> list[Segment]:
    """The live blocks as queries that write their keys.

    A shifted family also needs the query before them, which is read-only.
    """
    queries = span(bounds.start, bounds.end)
    predict = bounds.predicted
    segments = [Segment(bounds.row, 0, queries, key_end, write=True, predict=predict)]
    before = bounds.start - 1
    if info.shift and before >= 0 and predict[0] == bounds.start:
        own_end = key_end if info.alignment == 1 else bounds.start
        segments.append(
            Segment(
                bounds.row, 0, span(before, before + 1), own_end, write=False, predict=NO_POSITIONS
            )
        )
    return segments


@dataclass(frozen=True, slots=True)
class ShiftInfo:
    """The traits of a model that decide which queries a window needs."""

    shift: bool = False
    alignment: int = 1


def block_ends(positions: Ints, alignment: int) -> Ints:
    """End of the trained block each position lies in: what a block-causal query may see."""
    return (positions // alignment + 1) * alignment


def make_plan(
    rows: Rows,
    segments: Sequence[Segment],
    purposes: Sequence[str],
    *,
    valid_steps: int | None = None,
) -> ForwardPlan:
    """Bundle the segments of all rows; `valid_steps` as in `ForwardPlan`."""
    pages, capacity = rows.host.pages, rows.capacity
    lengths = rows.host.length.numpy()
    return ForwardPlan(
        tuple(segments), tuple(purposes), pages, capacity, valid_steps=valid_steps, lengths=lengths
    )
