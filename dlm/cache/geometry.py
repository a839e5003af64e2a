"""Segments that several policies plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlm.core import NOTHING, ForwardPlan, HostRows, Phase, Rows, Segment, span


@dataclass(frozen=True, slots=True)
class RowBounds:
    """What a policy asks of one row: its live blocks as one span, and what waits before them.

    `start:end` covers the live blocks; `opening`: the last of them is new; `clean`: spans of filled
    blocks that wait for their store, left to right; `stored`: leading positions whose keys are
    final.
    """

    row: int
    prompt: int
    length: int
    start: int
    end: int
    opening: bool
    clean: tuple[tuple[int, int], ...]
    stored: int


def bounds_of(host: HostRows) -> Iterator[RowBounds]:
    """The bounds of every row, read from the host's mirror."""
    tables = zip(
        *(getattr(host.blocks, n).tolist() for n in ("start", "end", "phase")), strict=True
    )
    numbers = zip(host.prompt.tolist(), host.length.tolist(), host.stored.tolist(), strict=True)
    for row, ((starts, ends, phases), (prompt, length, stored)) in enumerate(
        zip(tables, numbers, strict=True)
    ):
        blocks = list(zip(starts, ends, phases, strict=True))
        live = [(s, e, p) for s, e, p in blocks if p <= Phase.OPEN]
        yield RowBounds(
            row,
            prompt,
            length,
            start=min((s for s, _, _ in live), default=length),
            end=max((e for _, e, _ in live), default=length),
            opening=any(p == Phase.OPENING for _, _, p in live),
            clean=tuple((s, e) for s, e, p in blocks if p == Phase.CLEAN),
            stored=stored,
        )


def window(bounds: RowBounds, key_end: int, info: ShiftInfo) -> list[Segment]:
    """The live blocks as queries that write their keys.

    A shifted family also needs the query before them, which is read-only.
    """
    queries = span(bounds.start, bounds.end)
    predict = span(max(bounds.start, bounds.prompt), bounds.end)
    segments = [Segment(bounds.row, 0, queries, key_end, write=True, predict=predict)]
    before = bounds.start - 1
    if info.shift and before >= 0 and predict[0] == bounds.start:
        own_end = key_end if info.alignment == 1 else bounds.start
        segments.append(
            Segment(bounds.row, 0, span(before, before + 1), own_end, write=False, predict=NOTHING)
        )
    return segments


@dataclass(frozen=True, slots=True)
class ShiftInfo:
    """The traits of a model that decide which queries a window needs."""

    shift: bool = False
    alignment: int = 1


def block_ends(positions: Tensor, alignment: int) -> Tensor:
    """End of the trained block each position lies in: what a block-causal query may see."""
    return (torch.div(positions, alignment, rounding_mode="floor") + 1) * alignment


def make_plan(
    rows: Rows,
    segments: Sequence[Segment],
    purposes: Sequence[str],
    *,
    lasts: int | None = None,
) -> ForwardPlan:
    """Bundle the segments of all rows; `lasts` as in `ForwardPlan`."""
    pages, capacity = rows.host.pages, rows.capacity
    return ForwardPlan(tuple(segments), tuple(purposes), pages, capacity, lasts=lasts)
