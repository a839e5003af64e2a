"""Leaders: rows that are computed for all rows with the same input in a forward.

Forks of a row are equal but for the path of their random draws, until they draw. The first of such
rows in a group leads: the model computes its queries alone, and the rows that follow it take its
logits and copies of its keys. Each draws and decides for itself, and is computed from then on.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from dlm.core import ForwardPlan, Ints, Packed, Shared
from dlm.decode.packing import Slots
from dlm.decode.window import Planned
from dlm.model.kv_store import KVStore

SHARED: Final = "shared"
"""The purpose of a forward for a row that takes what was computed for another one."""
Leaders = tuple[int, ...]
"""The row that is computed for each row: itself, unless it follows another one."""


def leaders_of(lineages: Sequence[Hashable]) -> Leaders | None:
    """The first row with the lineage of each row; one without a lineage leads itself.

    None where nobody follows another row.
    """
    first: dict[Hashable, int] = {}
    found = tuple(first.setdefault(own, row) if own else row for row, own in enumerate(lineages))
    return _unless_alone(found)


def _unless_alone(leaders: Leaders) -> Leaders | None:
    return None if leaders == tuple(range(len(leaders))) else leaders


def confirmed(plan: ForwardPlan, leaders: Leaders) -> Leaders | None:
    """The leaders where a row's queries are those of its leader; it leads itself elsewhere.

    A cache policy may look at the path of a row and plan it differently. None where nobody follows.
    """
    queries: list[list[Any]] = [[] for _ in leaders]
    for segment in plan.segments:
        queries[segment.row].append(segment._replace(row=0))
    found = (
        leader if _same(queries[row], queries[leader]) else row
        for row, leader in enumerate(leaders)
    )
    return _unless_alone(tuple(found))


def _same(one: Any, other: Any) -> bool:
    """True if two nested sequences hold equal numbers and arrays."""
    if not isinstance(one, list | tuple) or not isinstance(other, list | tuple):
        return np.array_equal(one, other)
    return len(one) == len(other) and all(map(_same, one, other))


def billed_once(plan: ForwardPlan, leaders: Leaders) -> ForwardPlan:
    """The plan with the purpose `SHARED` for rows that follow; it serves one step."""
    purposes = (
        own if leader == row else SHARED
        for row, (own, leader) in enumerate(zip(plan.purposes, leaders, strict=True))
    )
    return replace(plan, purposes=tuple(purposes), valid_steps=1)


def without_followers(plan: ForwardPlan, leaders: Leaders) -> ForwardPlan:
    """The plan without the queries of rows that follow."""
    own = (segment for segment in plan.segments if leaders[segment.row] == segment.row)
    return replace(plan, segments=tuple(own))


def with_shared(packed: Packed, plans: Sequence[Planned], kv: Slots) -> Packed:
    """The call for the computed rows of `plans`, with the results that the others take."""
    places: list[Ints] = []
    sizes, start = [], 0
    slots = [np.empty((2, 0), dtype=np.int64)]
    for planned in plans:
        leaders = np.array(planned.leaders or range(len(planned.plan.purposes)))
        sizes.append(0)
        for counts in _logit_counts(planned.plan):
            own = np.where(leaders == np.arange(len(leaders)), counts, 0)
            first = (start + own.cumsum() - own)[leaders]
            places += map(np.arange, first, first + counts)
            start, sizes[-1] = start + int(own.sum()), sizes[-1] + int(counts.sum())
        slots += _copies(planned.plan, leaders, kv)
    arrays = np.concatenate(places), *np.concatenate(slots, axis=1)
    moved = (torch.from_numpy(array).to(packed.positions.device) for array in arrays)
    return packed._replace(shared=Shared(*moved), sizes=tuple(sizes))


def _logit_counts(plan: ForwardPlan) -> list[Ints]:
    """Rows of logits of each row `[R]`, in the order in which a plan has them: arm by arm those of
    the predicted positions, then those of shadow tokens.
    """
    rows = len(plan.purposes)
    predicted = np.zeros((plan.arms, rows, plan.capacity), dtype=np.bool_)
    shadows = np.zeros((plan.arms, rows), dtype=np.int64)
    for s in plan.segments:
        predicted[s.arm, s.row, s.predict] = True
        shadows[s.arm, s.row] += 0 if s.extra is None else len(s.extra.predict)
    pairs = zip(predicted.sum(axis=2), shadows, strict=True)
    return [counts for pair in pairs for counts in pair]


def _copies(plan: ForwardPlan, leaders: Ints, kv: Slots) -> list[Ints]:
    """`[2, q]` for each segment of a row that follows: the slots of its leader and its own."""
    pages = plan.pages.numpy()
    return [
        np.stack([kv.slots(pages[row, s.arm], s.q_pos) for row in (leaders[s.row], s.row)])
        for s in plan.segments
        if s.write and leaders[s.row] != s.row
    ]


def hand_out(shared: Shared, logits: Tensor, store: KVStore) -> Tensor:
    """Copy the keys of leaders to the rows that follow them; the logits `[N, V]` of all rows."""
    store.copy_slots(shared.source, shared.target)
    return logits.index_select(0, shared.logit_rows)
