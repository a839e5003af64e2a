"""The model as its own verifier: a second forward that reads a drafted block from left to right.

It runs between the draw and the decisions on the row's own pages, reads the keys of what is before
the block, and stores none: all its queries are shadow tokens (S2D2, arXiv 2603.25702).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from dlm.core import (
    NO_POSITIONS,
    Extra,
    Flags,
    ForwardPlan,
    Frame,
    Model,
    Rows,
    Segment,
    StepView,
    span,
)
from dlm.decode.group import RowGroup
from dlm.decode.packing import pack
from dlm.decode.view import branches_of
from dlm.model.kv_store import KVPool

SELF: Final = "self"
"""The name of the model among the auxiliary ones, in the ledger."""


def verify(group: RowGroup, view: StepView, model: Model, kv: KVPool) -> StepView:
    """The view with what the model says from left to right of the drafted blocks of the rows that
    ask for it, as branch 1.

    A position is judged by a MASK that sees all before its block, and of the block the tokens
    before it: what is committed, else what was drafted. `aux_tokens` of the group counts the
    computed tokens. The host looks which rows ask; where none does, nothing is computed.
    """
    assert group.shared.asks is not None, "no part asks for a verdict"
    asks = group.shared.asks(view._replace(params=group.params("unmask"))) & group.active
    asked: list[int] = asks.nonzero()[:, 0].tolist()
    if not asked:
        return view
    rows, mask_id = group.rows, view.mask_id
    assert mask_id is not None, "a model without a mask verifies nothing"
    plan = _plan(rows, asked, mask_id)
    canvas = rows.ids.scatter(1, view.pos, torch.where(view.eligible, view.token, view.ids))
    packed = pack([plan], kv.store, shift=False, device=rows.device).read([canvas])
    logits = model(packed, kv.store)
    group.aux_tokens[SELF] = plan.token_forwards
    slot, none = _slots(plan, view), view.window.shadow[:0]
    row = torch.div(slot, view.pos.shape[1], rounding_mode="floor")
    window = view.window._replace(slot=slot, shadow=none, row=row)
    shown = window, view.ids, view.kind, view.row, view.blocks
    frame = Frame(*shown, rows.kind, rows.scratch)
    for guide, params in group.calls["guide"]:
        logits = guide(logits[None], frame, params)[0]
    one = torch.ones_like(slot)
    window = view.window._replace(shadow=slot, branch=one, branches=1)
    both = torch.cat((view.logits, logits))
    return view._replace(branches=branches_of(logits, both, view.stats.logsumexp, window, mask_id))


def _plan(rows: Rows, asked: Sequence[int], mask_id: int) -> ForwardPlan:
    """For each row that asks, the tokens of its block, and a MASK for each of its positions."""
    host, segments = rows.host, []
    prompt, table = host.prompt.tolist(), host.blocks
    for row in asked:
        ((column,),) = table.live[row].nonzero(as_tuple=True)
        start, end = int(table.start[row, column]), int(table.end[row, column])
        places = span(start, end)
        extra = Extra(
            ids=np.repeat([-1, mask_id], len(places)),
            pos=np.tile(places, 2),
            mask=_left_to_right(start, len(places)),
            wanted=np.concatenate((np.zeros_like(places, np.bool_), places >= prompt[row])),
        )
        segments.append(Segment(row, 0, NO_POSITIONS, start, False, NO_POSITIONS, extra=extra))
    purposes, lengths = ("verify",) * rows.count, host.length.numpy()
    return ForwardPlan(tuple(segments), purposes, host.pages, rows.capacity, lengths=lengths)


def _left_to_right(start: int, size: int) -> Flags:
    """`[2 size, start + 2 size]`: all see what is before the block; a token those up to itself, a
    MASK the tokens before it and itself.
    """
    upto, itself = np.tri(size, dtype=np.bool_), np.eye(size, dtype=np.bool_)
    tokens = np.concatenate((upto, np.zeros_like(upto)), axis=1)
    masks = np.concatenate((upto & ~itself, itself), axis=1)
    before = np.ones((2 * size, start), dtype=np.bool_)
    return np.concatenate((before, np.concatenate((tokens, masks))), axis=1)


def _slots(plan: ForwardPlan, view: StepView) -> Tensor:
    """`[S]`: the flat places in `[R, W]` of the judged positions; a window shows the positions of
    a block side by side.
    """
    found = [(s.row, s.extra.pos[s.extra.predict]) for s in plan.segments if s.extra is not None]
    row = np.concatenate([np.full(len(pos), row) for row, pos in found])
    places = np.concatenate([pos for _, pos in found])
    device, width = view.pos.device, view.pos.shape[1]
    at = torch.from_numpy(row * width + places).to(device)
    return at - view.pos[:, 0].take(torch.from_numpy(row).to(device))
