"""Packing: the plans of several groups of rows as the flat tensors of one model call."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlm.core import AttentionGroup, Packed, RaggedGroup
from dlm.core.plan import Flags, ForwardPlan, Ints, Segment


class Slots(Protocol):
    """The members of a key/value store that packing uses."""

    @property
    def page_size(self) -> int:
        """Positions of a page."""
        ...

    @property
    def angles_by_length(self) -> bool:
        """True if keys depend on the length of their canvas."""
        ...

    def slots(self, pages: Ints, positions: Ints) -> Ints:
        """Slots `[...]` of `positions [...]` in the arm whose pages are `pages [P]`."""
        ...


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
    runs = sorted(_runs(plans, kv.page_size), key=lambda run: run.shape)
    counts = [len(run.positions) for run in runs]
    positions = np.concatenate([run.positions for run in runs])
    source = positions + np.repeat([run.base for run in runs], counts)
    # all page tables in a line are one long table, in which every run has positions of its own
    pages = np.concatenate([plan.pages.numpy().ravel() for plan in plans])
    slots = partial(kv.slots, pages)
    writes = sum(n for n, run in zip(counts, runs, strict=True) if run.writes)
    paged = positions[:writes] + np.repeat([run.origin for run in runs], counts)[:writes]
    fixed, branch = _joined(runs, lambda run: run.fixed, -1), _joined(runs, lambda r: r.branch, 0)
    rows = _logit_rows(plans, runs, shift)
    return Packed(
        ids=torch.empty(0, dtype=torch.long),
        positions=_moved(positions, device),
        write_slots=_moved(slots(paged), device),
        groups=tuple(_groups(runs, slots, device, ragged)),
        logit_rows=_moved(np.concatenate(rows), device),
        source=_moved(source, device),
        fixed=None if fixed is None else _moved(fixed, device),
        branch=None if branch is None else _moved(branch, device),
        sizes=tuple(len(r) for r in rows),
        lengths=_moved(_lengths(plans, runs, counts), device) if kv.angles_by_length else None,
    )


def _moved(array: NDArray[Any], device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)


class _Run(NamedTuple):
    """The queries of a segment, or its shadow tokens.

    base: place of the row's canvas in the flattened canvases of all plans.
    origin: place of the arm's pages in their page tables, in positions.
    """

    number: int
    segment: Segment
    shadow: bool
    base: int
    origin: int

    @property
    def shape(self) -> tuple[bool, bool, bool, int, int]:
        """By what runs are sorted: those that write come first, as `Packed.write_slots` needs, and
        unmasked ones of equal shape lie side by side to share an attention call.
        """
        return (not self.writes, self.shadow, self.masked, len(self.positions), self.segment.keys)

    @property
    def writes(self) -> bool:
        return self.segment.write and not self.shadow

    @property
    def masked(self) -> bool:
        return self.shadow or not isinstance(self.segment.key_end, int)

    @property
    def positions(self) -> Ints:
        extra = self.segment.extra
        return extra.pos if self.shadow and extra is not None else self.segment.q_pos

    @property
    def fixed(self) -> Ints | None:
        """`[q]`: ids that stand on no canvas, -1 where the canvas decides."""
        segment = self.segment
        return segment.extra.ids if self.shadow and segment.extra is not None else segment.ids

    @property
    def branch(self) -> Ints | None:
        """`[q]`: tokens of the row's draft that are filled in where the canvas decides."""
        extra = self.segment.extra
        return extra.branch if self.shadow and extra is not None else None

    @property
    def mask(self) -> Flags | None:
        """The keys that each query sees, `[q, K]`; None: all."""
        if self.shadow and self.segment.extra is not None:
            return self.segment.extra.mask
        end = self.segment.key_end
        return None if isinstance(end, int) else np.arange(self.segment.keys) < end[:, None]


def _runs(plans: Sequence[ForwardPlan], page_size: int) -> Iterator[_Run]:
    """Every run of every plan."""
    canvases = tables = 0
    for number, plan in enumerate(plans):
        rows, arms, pages = plan.pages.shape
        for s in plan.segments:
            reach = max(s.keys, int(s.q_pos.max(initial=-1)) + 1)
            assert reach <= pages * page_size, "a segment reaches beyond the pages of its row"
            base = canvases + s.row * plan.capacity
            origin = (tables + (s.row * arms + s.arm) * pages) * page_size
            if len(s.q_pos):
                yield _Run(number, s, shadow=False, base=base, origin=origin)
            if s.extra is not None:
                yield _Run(number, s, shadow=True, base=base, origin=origin)
        canvases += rows * plan.capacity
        tables += rows * arms * pages


def _lengths(plans: Sequence[ForwardPlan], runs: Sequence[_Run], counts: Sequence[int]) -> Ints:
    """`Packed.lengths`."""
    own = []
    for run in runs:
        known = plans[run.number].lengths
        assert known is not None, "the plan does not say how long its canvases are"
        own.append(known[run.segment.row])
    return np.repeat(np.array(own, dtype=np.int64), counts)


def _joined(runs: Sequence[_Run], numbers: Callable[[_Run], Ints | None], fill: int) -> Ints | None:
    """The numbers of all queries, `[T]`: `fill` for runs that have none; None where no run has."""
    own = [numbers(run) for run in runs]
    if all(values is None for values in own):
        return None
    pairs = zip(runs, own, strict=True)
    return np.concatenate([np.full(len(r.positions), fill) if v is None else v for r, v in pairs])


def _groups(
    runs: Sequence[_Run], slots: Callable[[Ints], Ints], device: torch.device, ragged: bool
) -> Iterable[AttentionGroup | RaggedGroup]:
    """Neighbours of equal shape form a group, or, with `ragged`, all neighbours without a mask; a
    masked run stands alone.
    """
    at = 0
    for members in _neighbours(runs, ragged):
        run = members[0]
        sizes = np.array([(len(r.positions), r.segment.keys, r.origin) for r in members])
        end = at + int(sizes[:, 0].sum())
        if ragged and not run.masked:
            yield _ragged_group(at, end, sizes, slots, device)
        else:
            keys = _moved(_key_slots(sizes, slots), device).view(len(members), run.segment.keys)
            seen = None if run.mask is None else _moved(run.mask, device)
            yield AttentionGroup(at, end, keys, seen, own=run.shadow)
        at = end


def _neighbours(runs: Sequence[_Run], ragged: bool) -> Iterator[list[_Run]]:
    """Runs side by side that one attention call can serve."""

    def call(run: _Run) -> Hashable:
        return id(run) if run.masked else ragged or run.shape

    for _, members in groupby(runs, key=call):
        yield list(members)


def _key_slots(sizes: Ints, slots: Callable[[Ints], Ints]) -> Ints:
    """The slots of the first keys of each run, one run after the other.

    `sizes [G, 3]`: queries, keys and origin of each run.
    """
    _, keys, origin = sizes.T
    before = keys.cumsum() - keys
    return slots(np.arange(keys.sum()) + np.repeat(origin - before, keys))


def _ragged_group(
    start: int, end: int, sizes: Ints, slots: Callable[[Ints], Ints], device: torch.device
) -> RaggedGroup:
    cuts = np.zeros((2, len(sizes) + 1), dtype=np.int32)
    sizes[:, :2].T.cumsum(axis=1, out=cuts[:, 1:])
    query_cuts, key_cuts = _moved(cuts, device).unbind()
    keys = _moved(_key_slots(sizes, slots), device)
    most_queries, most_keys, _ = sizes.max(axis=0).tolist()
    return RaggedGroup(start, end, keys, query_cuts, key_cuts, most_queries, most_keys)


def _logit_rows(plans: Sequence[ForwardPlan], runs: Sequence[_Run], shift: bool) -> list[Ints]:
    """Per plan, the packed query of each row of its logits.

    Arm by arm: the predicted positions row by row, ascending, then the shadow tokens.
    """
    shapes = [(plan.arms, plan.pages.shape[0], plan.capacity) for plan in plans]
    where = [np.full(shape, -1) for shape in shapes]
    wanted = [np.zeros(shape, dtype=np.bool_) for shape in shapes]
    shadows: dict[int, Ints] = {}  # by the identity of their segment: no two rows share one
    at = 0
    for run in runs:
        queries, s = np.arange(at, at + len(run.positions)), run.segment
        if run.shadow and s.extra is not None:
            shadows[id(s)] = queries[s.extra.predict]
        else:
            where[run.number][s.arm, s.row, s.q_pos] = queries
            wanted[run.number][s.arm, s.row, s.predict] = True
        at += len(queries)
    rows = []
    for plan, table, flags in zip(plans, where, wanted, strict=True):
        parts = []
        for arm in range(plan.arms):
            row, pos = flags[arm].nonzero()
            parts.append(table[arm, row, np.maximum(pos - int(shift), 0)])
            parts += [shadows[id(s)] for s in plan.shadowed(arm)]
        rows.append(np.concatenate(parts))
        assert bool((rows[-1] >= 0).all()), "a predicted position has no query in the plan"
    return rows
