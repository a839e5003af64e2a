"""Plans that are made row by row, and what policies read of a row."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dlm.core import (
    NO_POSITIONS,
    CacheManager,
    ForwardPlan,
    HostRows,
    Ints,
    Phase,
    Rows,
    Segment,
    span,
)


@dataclass(frozen=True, slots=True)
class RowBounds:
    """The bounds of one row: its live blocks as one span, and the clean blocks before them.

    row: its number
    prompt, length: positions of its prompt and canvas
    start, end: the span of the live blocks
    opening: the last of them is new
    age: steps since the last one opened
    clean: spans of filled blocks that wait for their store, left to right
    stored: leading positions whose keys are final
    step: steps of the row since it got its pages
    clock: all steps of the row, as `Rows.born` counts them
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
    clock: int

    @property
    def predicted(self) -> Ints:
        """The positions of the live blocks that are not the prompt's."""
        return span(max(self.start, self.prompt), self.end)


def bounds_of(host: HostRows) -> Iterator[RowBounds]:
    """The bounds of every row, read from the host's mirror."""
    table = host.blocks
    tables = (t.tolist() for t in (table.start, table.end, table.phase, table.step))
    numbers = (host.prompt, host.length, host.stored, host.step, host.first_step)
    lists = (t.tolist() for t in numbers)
    for row, (starts, ends, phases, ages, prompt, length, stored, clock, first) in enumerate(
        zip(*tables, *lists, strict=True)
    ):
        blocks = list(zip(starts, ends, phases, ages, strict=True))
        live = [block for block in blocks if block[2] <= Phase.OPEN]
        yield RowBounds(
            row,
            prompt,
            length,
            start=min((s for s, _, _, _ in live), default=length),
            end=max((e for _, e, _, _ in live), default=length),
            opening=any(p == Phase.OPENING for _, _, p, _ in live),
            age=min((a for _, _, _, a in live), default=0),
            clean=tuple((s, e) for s, e, p, _ in blocks if p == Phase.CLEAN),
            stored=stored,
            step=clock - first,
            clock=clock,
        )


class Queries(NamedTuple):
    """Positions of a row that are computed together, and whose keys are stored.

    q_pos: the positions, ascending, `[q]`
    predict: positions whose logits are wanted
    key_end: they see this many first keys: one number, or `[q]` numbers
    left_end: the left neighbours that a shifted family reads beside them see this many (None:
        `key_end`)
    """

    q_pos: Ints
    predict: Ints
    key_end: int | Ints
    left_end: int | None = None

    def segments(self, row: int, *, shift: bool) -> Iterator[Segment]:
        """The queries, and read-only ones of the left neighbours of what is predicted, where a
        shifted family needs them and they are not among the queries.
        """
        yield Segment(row, 0, self.q_pos, self.key_end, write=True, predict=self.predict)
        left = self.predict[self.predict > 0] - 1 if shift else NO_POSITIONS
        left = left[~np.isin(left, self.q_pos)]
        if len(left):
            end = self.key_end if self.left_end is None else self.left_end
            yield Segment(row, 0, left, end, write=False, predict=NO_POSITIONS)


class RowPlan(NamedTuple):
    """The next forward of one row.

    queries: the positions that it computes
    purpose: of the forward, as in `ForwardPlan`
    valid_steps: steps that the choice may serve at most (None: until a block changes)
    """

    queries: Sequence[Queries]
    purpose: str = "step"
    valid_steps: int | None = None


class RowPolicy(CacheManager):
    """A policy that plans each row by itself.

    shift: the model is of a shifted family
    """

    __slots__ = ()

    shift: bool = False

    @abstractmethod
    def plan_row(self, rows: Rows, b: RowBounds) -> RowPlan:
        """The next forward of the row with the bounds `b`."""

    def plan(self, rows: Rows) -> ForwardPlan:
        """The forwards of all rows in one plan, which serves as long as each of them may."""
        chosen = [(b.row, self.plan_row(rows, b)) for b in bounds_of(rows.host)]
        segments = [
            segment
            for row, own in chosen
            for queries in own.queries
            for segment in queries.segments(row, shift=self.shift)
        ]
        limits = [own.valid_steps for _, own in chosen if own.valid_steps is not None]
        return ForwardPlan(
            tuple(self.with_prompts(rows.host, segments)),
            tuple(own.purpose for _, own in chosen),
            rows.host.pages,
            rows.capacity,
            valid_steps=min(limits, default=None),
            lengths=rows.host.length.numpy(),
        )

    def with_prompts(self, host: HostRows, segments: Sequence[Segment]) -> Sequence[Segment]:
        """The segments; a policy that makes the prompts' keys apart plans them here."""
        return segments


def window(b: RowBounds, start: int, end: int) -> Queries:
    """The positions `start:end`, which see the whole canvas; the live blocks are predicted."""
    return Queries(span(start, end), b.predicted, b.length)


def refresh(
    b: RowBounds, valid_steps: int | None = None, left_over: Ints = NO_POSITIONS
) -> RowPlan:
    """The whole canvas as queries; logits for what is left over and for the live blocks."""
    predict = np.concatenate((left_over, b.predicted))
    whole = Queries(span(0, b.length), predict, b.length)
    return RowPlan((whole,), "refresh step", valid_steps)


def block_ends(positions: Ints, alignment: int) -> Ints:
    """End of the trained block each position lies in: what a block-causal query may see."""
    return (positions // alignment + 1) * alignment
