"""What one forward computes.

Segments of query positions are planned per row and packed into flat tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Segment(NamedTuple):
    """A run of query positions of one arm of one row.

    `q_pos [q]` ascending int64 on the CPU. The queries attend to the row's first `key_end` keys:
    one number, or `[q]` numbers (block-causal prefill, causal models). `write`: their keys are
    stored, before anything attends; a read-only segment only looks. `predict`: positions whose
    logits are wanted; row i of the logits predicts position i, so models with a shift need the
    query i - 1 in the plan. `ids [q]` replaces the row's own ids where it is not negative (a CFG
    arm with the prompt masked).
    """

    row: int
    arm: int
    q_pos: Tensor
    key_end: int | Tensor
    write: bool
    predict: Tensor
    ids: Tensor | None = None

    @property
    def keys(self) -> int:
        """How many keys the segment reads at most."""
        return self.key_end if isinstance(self.key_end, int) else int(self.key_end.max())


NOTHING = torch.empty(0, dtype=torch.long)
"""A segment that predicts nothing."""


def span(start: int, end: int) -> Tensor:
    """Positions `start, ..., end - 1`."""
    return torch.arange(start, end)


@dataclass(frozen=True, slots=True, eq=False)
class ForwardPlan:
    """The segments of one forward over R rows, with the geometry that packing needs.

    `purposes` says per row what the forward is for, first the main one: `step`, `refresh`,
    `prefill`, `store` (`refresh step`, `store step`: fused, counted once). `pages [R, arms, P]` and
    `capacity` (L) place the rows. `once`: the plan holds for a single step; others are reused until
    a block changes.
    """

    segments: tuple[Segment, ...]
    purposes: tuple[str, ...]
    pages: Tensor
    capacity: int
    arms: int = 1
    once: bool = False

    @property
    def token_forwards(self) -> list[int]:
        """Per row, how many positions are computed, those of extra arms included."""
        counts = [0] * self.pages.shape[0]
        for segment in self.segments:
            counts[segment.row] += len(segment.q_pos)
        return counts

    def with_arms(
        self, arms: int, conceal: Callable[[int, Segment], Tensor], mask_id: int
    ) -> ForwardPlan:
        """The same plan for `arms` inputs of every row.

        `conceal(arm, segment) [q]` tells which positions an extra arm sees as MASK.
        """
        extra = [
            segment._replace(arm=arm, ids=torch.where(conceal(arm, segment), mask_id, -1))
            for arm in range(1, arms)
            for segment in self.segments
        ]
        return replace(self, segments=(*self.segments, *extra), arms=arms)


class Slots(Protocol):
    """What packing needs of a key/value pool."""

    def slots(self, pages: Tensor, positions: Tensor) -> Tensor:
        """Pool slots `[q]` of `positions [q]` in the row whose pages are `pages [P]`."""
        ...


class AttentionGroup(NamedTuple):
    """G segments of equal shape, adjacent in the packed queries `start:end`.

    `key_slots [G, K]`: the keys that each segment reads; `mask [q, K]`: which of them each query
    sees (None: all).
    """

    start: int
    end: int
    key_slots: Tensor
    mask: Tensor | None


class Packed(NamedTuple):
    """Flat inputs of one model call over T queries, N logit rows.

    `ids`, `positions` `[T]`; the first `len(write_slots)` queries store their keys there;
    `logit_rows [N]` index the queries. `source [T]` finds each id in the concatenated, flattened
    canvases of the plans; `fixed [T]` overrides it where it is not negative.
    """

    ids: Tensor
    positions: Tensor
    write_slots: Tensor
    groups: tuple[AttentionGroup, ...]
    logit_rows: Tensor
    source: Tensor
    fixed: Tensor | None
    sizes: tuple[int, ...]

    def read(self, canvases: Sequence[Tensor]) -> Packed:
        """The same geometry with the ids that the canvases `[R, L]` hold now."""
        ids = torch.cat([c.reshape(-1) for c in canvases]).index_select(0, self.source)
        return self._replace(
            ids=ids if self.fixed is None else torch.where(self.fixed >= 0, self.fixed, ids)
        )


def pack(plans: Sequence[ForwardPlan], kv: Slots, *, shift: bool, device: torch.device) -> Packed:
    """Flatten the plans of several groups of rows into one model call on `device`.

    Segments of equal shape come to lie side by side, so that one attention call serves them all;
    writing segments come first. Raises `AssertionError` when a predicted position lacks its query
    (an error of a cache policy).
    """
    bases = _bases(plans)
    items = [
        (base, plan, segment)
        for base, plan in zip(bases, plans, strict=True)
        for segment in plan.segments
    ]
    items.sort(key=lambda item: _shape(item[2]))
    positions = torch.cat([s.q_pos for _, _, s in items])
    source = torch.cat([base + s.row * plan.capacity + s.q_pos for base, plan, s in items])
    write = [kv.slots(plan.pages[s.row, s.arm], s.q_pos) for _, plan, s in items if s.write]
    rows = _logit_rows(plans, items, int(shift))
    return Packed(
        ids=NOTHING,
        positions=positions.to(device),
        write_slots=(torch.cat(write) if write else NOTHING).to(device),
        groups=tuple(_groups(items, kv, device)),
        logit_rows=torch.cat(rows).to(device),
        source=source.to(device),
        fixed=_fixed([s for _, _, s in items], device),
        sizes=tuple(len(r) for r in rows),
    )


def _bases(plans: Sequence[ForwardPlan]) -> list[int]:
    """Where each plan's flattened canvas starts in their concatenation."""
    bases, total = [], 0
    for plan in plans:
        bases.append(total)
        total += plan.pages.shape[0] * plan.capacity
    return bases


_Item = tuple[int, ForwardPlan, Segment]


def _shape(segment: Segment) -> tuple[bool, bool, int, int]:
    masked = not isinstance(segment.key_end, int)
    return (not segment.write, masked, len(segment.q_pos), segment.keys)


def _groups(items: Sequence[_Item], kv: Slots, device: torch.device) -> Iterable[AttentionGroup]:
    """Runs of items of equal shape.

    A segment with per-query key ends stands alone, with its mask.
    """
    at = first = 0
    while first < len(items):
        segment = items[first][2]
        last = first + 1
        while (
            last < len(items)
            and isinstance(segment.key_end, int)
            and _shape(items[last][2]) == _shape(segment)
        ):
            last += 1
        keys = span(0, segment.keys)
        slots = torch.stack(
            [kv.slots(plan.pages[s.row, s.arm], keys) for _, plan, s in items[first:last]]
        )
        end = at + (last - first) * len(segment.q_pos)
        mask = (
            None
            if isinstance(segment.key_end, int)
            else (keys < segment.key_end[:, None]).to(device)
        )
        yield AttentionGroup(at, end, slots.to(device), mask)
        at, first = end, last


def _logit_rows(plans: Sequence[ForwardPlan], items: Sequence[_Item], shift: int) -> list[Tensor]:
    """Per plan, the packed query that predicts each wanted position.

    The order is arm by arm, row by row, positions ascending.
    """
    where = [
        torch.full((p.arms, p.pages.shape[0], p.capacity), -1, dtype=torch.long) for p in plans
    ]
    wanted = [torch.zeros(p.arms, p.pages.shape[0], p.capacity, dtype=torch.bool) for p in plans]
    index = {id(plan): i for i, plan in enumerate(plans)}
    at = 0
    for _, plan, s in items:
        i = index[id(plan)]
        where[i][s.arm, s.row, s.q_pos] = torch.arange(at, at + len(s.q_pos))
        wanted[i][s.arm, s.row, s.predict] = True
        at += len(s.q_pos)
    rows = []
    for table, flags in zip(where, wanted, strict=True):
        arm, row, pos = flags.nonzero(as_tuple=True)
        rows.append(table[arm, row, (pos - shift).clamp_min(0)])
        assert bool((rows[-1] >= 0).all()), "a predicted position has no query in the plan"
    return rows


def _fixed(segments: Sequence[Segment], device: torch.device) -> Tensor | None:
    if all(s.ids is None for s in segments):
        return None
    own = [torch.full_like(s.q_pos, -1) if s.ids is None else s.ids for s in segments]
    return torch.cat(own).to(device)
