"""What a proposal does to a canvas, position by position."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from dlm.core import Kind, Process, Proposal, StepView


class Op(IntEnum):
    """What happened to a position in a step."""

    NONE = 0
    COMMIT = 1
    REMASK = 2
    REPLACE = 3
    RENOISE = 4


class Outcome(NamedTuple):
    """The canvas after a proposal, `[R, W]` each.

    Its ids and kinds, what happened (`Op`), and where a token was written (committed or replaced).
    """

    ids: Tensor
    kind: Tensor
    op: Tensor
    written: Tensor


def resolve(view: StepView, proposal: Proposal, process: Process, mask_id: int | None) -> Outcome:
    """Combine the parts of a proposal into one outcome.

    What is both committed and remasked stays as it was. Commits and renoising touch open positions
    with logits alone, remasking and replacing committed ones; what is given is never touched, and
    MASK is never written.
    """
    token = view.token
    may_write = view.scored if mask_id is None else view.scored & (token != mask_id)
    written = committed = proposal.commit & (view.kind >= Kind.MASK) & may_write
    ids, kind, op = view.ids, view.kind, committed.to(torch.int8)
    fresh: Tensor | None = None
    if proposal.remask is not None:
        fresh = proposal.remask & ~committed & (kind == Kind.COMMITTED)
        written = committed = committed & ~proposal.remask
        kind = kind.masked_fill(fresh, process.open_kind)
        op = committed.to(torch.int8).masked_fill(fresh, Op.REMASK)
    if proposal.replace is not None:
        replaced = proposal.replace & (kind == Kind.COMMITTED) & (token != ids) & may_write
        op, written = op.masked_fill(replaced, Op.REPLACE), written | replaced
    if proposal.renoise is not None:
        noised = proposal.renoise & (view.kind >= Kind.MASK) & ~committed
        op = op.masked_fill(noised, Op.RENOISE)
        fresh = noised if fresh is None else fresh | noised
    if fresh is not None:
        prior = process.prior(view.seed, view.path, view.pos, view.step)
        ids = torch.where(fresh, prior, ids)
    ids = torch.where(written, token, ids)
    return Outcome(ids, kind.masked_fill(committed, Kind.COMMITTED), op, written)
