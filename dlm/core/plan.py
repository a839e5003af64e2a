"""The work of one forward: segments of query positions, planned row by row.

Plans are made on the host and hold numpy arrays; packing moves them to the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]
"""Positions, ids and counts on the host."""
Flags = NDArray[np.bool_]
"""Masks on the host."""


class Extra(NamedTuple):
    """Shadow tokens: queries that stand on no canvas (WINO, arXiv 2507.18578).

    Nothing else sees a shadow and no key of one is stored. Each predicts its own position.

    ids, pos: as the model sees them, `[e]`; a negative id is read from the row's canvas.
    mask: the segment's keys, then the shadows themselves, that each may see, `[e, keys + e]`.
    branch: the shadows are copies of the canvas in which the first so many tokens of the row's
        draft are filled in (`Rows.draft`), `[e]`, from 1 on (None: they are no copies).
    wanted: those whose logits are wanted, `[e]` (None: all).
    """

    ids: Ints
    pos: Ints
    mask: Flags
    branch: Ints | None = None
    wanted: Flags | None = None

    @property
    def predict(self) -> Ints:
        """The numbers of the shadows whose logits are wanted."""
        return np.arange(len(self.pos)) if self.wanted is None else self.wanted.nonzero()[0]


class Segment(NamedTuple):
    """A run of query positions of one arm of one row.

    q_pos: the positions, ascending, `[q]`.
    key_end: the queries attend to this many first keys of the row: one number, or `[q]` numbers
        (block-causal prefill, causal models).
    write: their keys are stored, before anything attends; a read-only segment only looks.
    predict: positions whose logits are wanted; row i of the logits predicts position i, so models
        with a shift need the query i - 1 in the plan.
    ids: replace the row's own ids where they are not negative (a CFG arm with the prompt masked).
    extra: shadow tokens that look at the same keys.
    """

    row: int
    arm: int
    q_pos: Ints
    key_end: int | Ints
    write: bool
    predict: Ints
    ids: Ints | None = None
    extra: Extra | None = None

    @property
    def keys(self) -> int:
        """The largest number of keys that a query of the segment reads."""
        return self.key_end if isinstance(self.key_end, int) else int(self.key_end.max())


INT64_MAX = int(np.iinfo(np.int64).max)
"""After every position."""
NO_POSITIONS = np.empty(0, dtype=np.int64)
"""A segment that predicts nothing."""


def span(start: int, end: int) -> Ints:
    """Positions `start, ..., end - 1`."""
    return np.arange(start, end)


@dataclass(frozen=True, slots=True, eq=False)
class ForwardPlan:
    """The segments of one forward over R rows, with the geometry that packing needs.

    A plan is reused until a block changes.

    segments: the queries of all rows.
    purposes: the purpose of the forward for each row, first the main one: `step`, `refresh`,
        `prefill`, `store` (`refresh step`, `store step`: fused, counted once).
    pages: page tables, `[R, C, P]` on the CPU; the arm of a segment is the line.
    capacity: L of the canvases.
    arms: model inputs of each row.
    valid_steps: steps that the plan may serve at most (None: no bound).
    lengths: of the canvases, for models whose angles depend on them, `[R]`.
    """

    segments: tuple[Segment, ...]
    purposes: tuple[str, ...]
    pages: Tensor
    capacity: int
    arms: int = 1
    valid_steps: int | None = None
    lengths: Ints | None = None

    @property
    def token_forwards(self) -> list[int]:
        """Per row, the number of tokens computed, those of further arms and shadows included."""
        counts = [0] * self.pages.shape[0]
        for segment in self.segments:
            shadows = 0 if segment.extra is None else len(segment.extra.pos)
            counts[segment.row] += len(segment.q_pos) + shadows
        return counts

    @property
    def written(self) -> Ints:
        """`[T]`: flat places in `[R, L]` of the canvas whose keys the forward makes."""
        own = (s for s in self.segments if s.write and s.arm == 0)
        return np.concatenate([NO_POSITIONS, *(s.row * self.capacity + s.q_pos for s in own)])

    def shadowed(self, arm: int) -> list[Segment]:
        """The segments of an arm that have shadow tokens, row by row."""
        own = [s for s in self.segments if s.arm == arm and s.extra is not None]
        return sorted(own, key=lambda s: s.row)

    @classmethod
    def joined(
        cls, plans: Sequence[tuple[Sequence[int], ForwardPlan]], pages: Tensor, lengths: Ints
    ) -> ForwardPlan:
        """One plan of several, each with the numbers of its rows; `pages` and `lengths` of all."""
        segments = [s._replace(row=rows[s.row]) for rows, plan in plans for s in plan.segments]
        purposes = {r: p for rows, plan in plans for r, p in zip(rows, plan.purposes, strict=True)}
        limits = [plan.valid_steps for _, plan in plans if plan.valid_steps is not None]
        return cls(
            tuple(segments),
            tuple(purposes[row] for row in range(len(purposes))),
            pages,
            plans[0][1].capacity,
            valid_steps=min(limits, default=None),
            lengths=lengths,
        )

    def with_arms(
        self, arms: int, masked_for_arm: Callable[[int, Segment], Flags], mask_id: int
    ) -> ForwardPlan:
        """The same plan for `arms` inputs of every row.

        `masked_for_arm(arm, segment) [q]` reports the positions that an extra arm sees as MASK.
        """
        extra = [
            segment._replace(arm=arm, ids=np.where(masked_for_arm(arm, segment), mask_id, -1))
            for arm in range(1, arms)
            for segment in self.segments
        ]
        return replace(self, segments=(*self.segments, *extra), arms=arms)


class SharedPrefix(NamedTuple):
    """The keys that requests that begin alike can share.

    name: cache namespace; the same ids under two names have different keys
    unit: a key depends only on ids up to the end of its unit of this many positions (None: on the
        whole prompt)
    prompt_only: positions after the prompt are not shared
    """

    name: str
    unit: int | None
    prompt_only: bool = False
