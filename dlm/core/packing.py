"""Packing: the plans of several groups of rows as the flat tensors of one model call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dlm.core.plan import NOTHING, ForwardPlan, Segment, span


class Slots(Protocol):
    """What packing needs of a key/value pool."""

    def slots(self, pages: Tensor, positions: Tensor) -> Tensor:
        """Pool slots `[q]` of `positions [q]` in the row whose pages are `pages [P]`."""
        ...


class AttentionGroup(NamedTuple):
    """G runs of queries of equal shape, adjacent in the packed queries `start:end`.

    `key_slots [G, K]`: the stored keys that each run reads; `mask [q, K]`: which of them each query
    sees (None: all). `own`: the run also reads the keys of its own queries, which are not stored;
    `mask` is then `[q, K + q]`.
    """

    start: int
    end: int
    key_slots: Tensor
    mask: Tensor | None
    own: bool


class RaggedGroup(NamedTuple):
    """G unmasked runs of queries of any shapes, adjacent in the packed queries `start:end`.

    `key_slots [K]`: the stored keys that the runs read, one run after the other; `query_cuts`,
    `key_cuts` `[G + 1]` int32: where the runs begin and end among the group's queries and keys;
    `most_queries`, `most_keys`: the longest run.
    """

    start: int
    end: int
    key_slots: Tensor
    query_cuts: Tensor
    key_cuts: Tensor
    most_queries: int
    most_keys: int


class Packed(NamedTuple):
    """Flat inputs of one model call over T queries, N logit rows.

    `ids`, `positions` `[T]`; the first `len(write_slots)` queries store their keys there;
    `logit_rows [N]` index the queries: plan by plan, arm by arm, first the predicted positions,
    then the shadow tokens, `sizes` of them for each plan. `source [T]` finds each id in the
    concatenated, flattened canvases of the plans; `fixed [T]` overrides it where it is not
    negative.
    """

    ids: Tensor
    positions: Tensor
    write_slots: Tensor
    groups: tuple[AttentionGroup | RaggedGroup, ...]
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


def pack(
    plans: Sequence[ForwardPlan],
    kv: Slots,
    *,
    shift: bool,
    device: torch.device,
    ragged: bool = False,
) -> Packed:
    """Flatten the plans of several groups of rows into one model call on `device`.

    Runs of equal shape come to lie side by side, so that one attention call serves them all;
    with `ragged`, one call serves unmasked runs of any shapes. Those that write come first. Raises
    `AssertionError` when a predicted position lacks its query (an error of a cache policy).
    """
    runs = sorted(_runs(plans), key=lambda run: run.shape)
    positions = torch.cat([run.positions for run in runs])
    source = torch.cat([run.source for run in runs])
    write = [kv.slots(r.pages, r.positions) for r in runs if r.segment.write and not r.shadow]
    fixed = torch.cat([run.fixed for run in runs])
    rows = _logit_rows(plans, runs, int(shift))
    return Packed(
        ids=NOTHING,
        positions=positions.to(device),
        write_slots=(torch.cat(write) if write else NOTHING).to(device),
        groups=tuple(_groups(runs, kv, device, ragged)),
        logit_rows=torch.cat(rows).to(device),
        source=source.to(device),
        fixed=fixed.to(device) if bool((fixed >= 0).any()) else None,
        sizes=tuple(len(r) for r in rows),
    )


class _Run(NamedTuple):
    """The queries of a segment, or its shadow tokens; `base`: where the plan's canvases start."""

    number: int
    plan: ForwardPlan
    base: int
    segment: Segment
    shadow: bool

    @property
    def shape(self) -> tuple[bool, bool, bool, int, int]:
        """By what runs are sorted: those that write come first, as `Packed.write_slots` needs, and
        unmasked ones of equal shape lie side by side to share an attention call.
        """
        writes = self.segment.write and not self.shadow
        return (not writes, self.shadow, self.masked, len(self.positions), self.segment.keys)

    @property
    def masked(self) -> bool:
        return self.shadow or not isinstance(self.segment.key_end, int)

    @property
    def positions(self) -> Tensor:
        extra = self.segment.extra
        return extra.pos if self.shadow and extra is not None else self.segment.q_pos

    @property
    def pages(self) -> Tensor:
        return self.plan.pages[self.segment.row, self.segment.arm]

    @property
    def source(self) -> Tensor:
        return self.base + self.segment.row * self.plan.capacity + self.positions

    @property
    def fixed(self) -> Tensor:
        """`[q]`: ids that stand on no canvas, -1 where the canvas decides."""
        segment = self.segment
        if self.shadow and segment.extra is not None:
            return segment.extra.ids
        return torch.full_like(segment.q_pos, -1) if segment.ids is None else segment.ids

    def mask(self, keys: Tensor) -> Tensor | None:
        """Which keys each query sees."""
        if self.shadow and self.segment.extra is not None:
            return self.segment.extra.mask
        end = self.segment.key_end
        return None if isinstance(end, int) else keys < end[:, None]


def _runs(plans: Sequence[ForwardPlan]) -> Iterator[_Run]:
    """Every run of every plan."""
    base = 0
    for number, plan in enumerate(plans):
        for segment in plan.segments:
            yield _Run(number, plan, base, segment, shadow=False)
            if segment.extra is not None:
                yield _Run(number, plan, base, segment, shadow=True)
        base += plan.pages.shape[0] * plan.capacity


def _groups(
    runs: Sequence[_Run], kv: Slots, device: torch.device, ragged: bool
) -> Iterable[AttentionGroup | RaggedGroup]:
    """Neighbours of equal shape form a group, or, with `ragged`, all neighbours without a mask; a
    masked run stands alone.
    """
    at = first = 0
    while first < len(runs):
        run, last = runs[first], first + 1
        while last < len(runs) and _joins(run, runs[last], ragged):
            last += 1
        members = runs[first:last]
        end = at + sum(len(r.positions) for r in members)
        if ragged and not run.masked:
            yield _ragged_group(at, end, members, kv, device)
        else:
            yield _equal_group(at, end, members, kv, device)
        at, first = end, last


def _joins(run: _Run, other: _Run, ragged: bool) -> bool:
    """Whether one attention call can serve both."""
    if run.masked or other.masked:
        return False
    return ragged or run.shape == other.shape


def _equal_group(
    start: int, end: int, runs: Sequence[_Run], kv: Slots, device: torch.device
) -> AttentionGroup:
    run = runs[0]
    keys = span(0, run.segment.keys)
    slots = torch.stack([kv.slots(r.pages, keys) for r in runs])
    mask = run.mask(keys)
    seen = None if mask is None else mask.to(device)
    return AttentionGroup(start, end, slots.to(device), seen, own=run.shadow)


def _ragged_group(
    start: int, end: int, runs: Sequence[_Run], kv: Slots, device: torch.device
) -> RaggedGroup:
    slots = torch.cat([kv.slots(r.pages, span(0, r.segment.keys)) for r in runs])
    queries, keys = [len(r.positions) for r in runs], [r.segment.keys for r in runs]
    cuts = torch.tensor([[0, *accumulate(sizes)] for sizes in (queries, keys)], dtype=torch.int32)
    query_cuts, key_cuts = cuts.to(device).unbind()
    return RaggedGroup(start, end, slots.to(device), query_cuts, key_cuts, max(queries), max(keys))


def _logit_rows(plans: Sequence[ForwardPlan], runs: Sequence[_Run], shift: int) -> list[Tensor]:
    """Per plan, the packed query of each row of its logits.

    Arm by arm: the predicted positions row by row, ascending, then the shadow tokens.
    """
    shapes = [(plan.arms, plan.pages.shape[0], plan.capacity) for plan in plans]
    where = [torch.full(shape, -1, dtype=torch.long) for shape in shapes]
    wanted = [torch.zeros(shape, dtype=torch.bool) for shape in shapes]
    shadows: dict[int, Tensor] = {}  # by the identity of their segment: no two rows share one
    at = 0
    for run in runs:
        queries, s = torch.arange(at, at + len(run.positions)), run.segment
        if run.shadow:
            shadows[id(s)] = queries
        else:
            where[run.number][s.arm, s.row, s.q_pos] = queries
            wanted[run.number][s.arm, s.row, s.predict] = True
        at += len(queries)
    rows = []
    for plan, table, flags in zip(plans, where, wanted, strict=True):
        parts = []
        for arm in range(plan.arms):
            row, pos = flags[arm].nonzero(as_tuple=True)
            parts.append(table[arm, row, (pos - shift).clamp_min(0)])
            parts += [shadows[id(s)] for s in plan.shadowed(arm)]
        rows.append(torch.cat(parts))
        assert bool((rows[-1] >= 0).all()), "a predicted position has no query in the plan"
    return rows
