"""Applying proposals: forced progress, the update of the canvas, and scratch values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from dlm.core import BLOCK_COLUMNS, INT64_MAX, Entries, Kind, Process, Proposal, RowInfo, StepView
from dlm.decode.group import RowGroup
from dlm.errors import is_foreign


class Op(IntEnum):
    """The change of a position in a step."""

    NONE = 0
    COMMIT = 1
    REMASK = 2
    REPLACE = 3
    RENOISE = 4


class CanvasUpdate(NamedTuple):
    """The canvas after a proposal, `[R, W]` each.

    ids, kind: of the positions
    op: the change of each (`Op`)
    written: positions that took a token (committed or replaced)
    """

    ids: Tensor
    kind: Tensor
    op: Tensor
    written: Tensor


def resolve(
    view: StepView, proposal: Proposal, process: Process, mask_id: int | None
) -> CanvasUpdate:
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
        prior = process.prior(view.row.seed, view.row.path, view.pos, view.row.step)
        ids = torch.where(fresh, prior, ids)
    ids = torch.where(written, token, ids)
    return CanvasUpdate(ids, kind.masked_fill(committed, Kind.COMMITTED), op, written)


EDIT_STEPS: Final = (32, 4)
"""Steps beyond its commits that a row may spend on edits: this many, and this many a position."""


def edit_budget(row: RowInfo, parts: Mapping[str, Sequence[tuple[Any, Any]]]) -> Tensor:
    """`[R]`: the steps that a row may take beyond one for each of its commits.

    `EDIT_STEPS`, the steps of the schedules, and for each position the steps for which editors may
    hold its block. `parts`: the parts of each kind with their numbers.
    """
    base, each = EDIT_STEPS
    steps, held = torch.zeros_like(row.step), torch.full_like(row.step, each)
    for _, params in (*parts["unmask"], *parts["edit"]):
        for name, total in (("steps", steps), ("post_steps", held)):
            number = getattr(params, name, None)
            if isinstance(number, Tensor) and number.shape == (len(total), 1):
                total += number[:, 0].long()
    return base + steps + held * row.length


def with_progress(
    group: RowGroup, view: StepView, proposal: Proposal, mask_id: int | None
) -> Proposal:
    """See to it that rows come to an end, whatever their parts propose.

    A step without a net change commits the best position of each block that must progress, and
    the edit of it is taken back; parts on a schedule are exempt. After `edit_budget` steps more
    than its commits need, a row commits in every step, on a schedule or not, and no edit passes.
    """
    parts = group.parts
    if not parts.edit and not (parts.clock and is_foreign(parts.unmask)):
        return proposal
    open_now = (group.rows.kind >= Kind.MASK).sum(dim=1)
    committed = view.row.initial_masks - open_now
    granted = edit_budget(view.row, group.parts_with_params) + group.rows.grace
    late = view.row.step >= committed + granted
    return _forced(view, proposal, late & group.active, mask_id, parts.paced)


def _forced(
    view: StepView, proposal: Proposal, late: Tensor, mask_id: int | None, paced: bool
) -> Proposal:
    """Make every block that must progress commit, in rows that change nothing or are late.

    late: rows that have spent their edits, `[R]`; none of their edits passes
    paced: a schedule allows the other rows to change nothing
    """
    none, on_time = torch.zeros_like(proposal.commit), ~late[:, None]
    token = view.token if proposal.token is None else proposal.token
    remask, replace, renoise = (
        none if mask is None else mask & on_time
        for mask in (proposal.remask, proposal.replace, proposal.renoise)
    )
    filled = view.kind == Kind.COMMITTED
    commit = proposal.commit & ~remask
    if mask_id is not None:
        commit = commit & (token != mask_id)
    edits = (remask | (replace & (token != view.ids))) & filled | (
        renoise & (view.kind >= Kind.MASK) & ~commit
    )
    idle = torch.zeros_like(late) if paced else ~edits.any(dim=1)
    must = view.must_progress & (idle | late)[:, None]
    forced = forced_commits(view._replace(must_progress=must), commit)
    return proposal._replace(
        commit=proposal.commit | forced,
        token=None if proposal.token is None else torch.where(forced, view.token, token),
        remask=None if proposal.remask is None else remask & ~forced,
        replace=None if proposal.replace is None else replace,
        renoise=None if proposal.renoise is None else renoise & ~forced,
        hold=None if proposal.hold is None else proposal.hold & ~late,
    )


ScratchWrite = tuple[Tensor, Tensor | None, Tensor]
"""A tensor, the places in it (None: all), and their new values."""


def check_scratch(group: RowGroup, scratch: Mapping[str, Tensor | Entries]) -> list[ScratchWrite]:
    """Check new values of scratch tensors and prepare to write them.

    Nothing is written yet, so that a later check may still fail; rows that have ended are left out.
    Raises `ValueError` for another shape.
    """
    return [_written(group, name, value) for name, value in scratch.items()]


def write_scratch(writes: Iterable[ScratchWrite]) -> None:
    """Write checked values of scratch tensors."""
    for tensor, at, value in writes:
        tensor.copy_(value) if at is None else tensor.index_copy_(0, at, value)


def _written(group: RowGroup, name: str, value: Tensor | Entries) -> ScratchWrite:
    """A scratch tensor, flat where entries of it are written, their places, and the values."""
    old = group.rows.scratch[name]
    if isinstance(value, Entries):
        flat = old.flatten(0, 1)
        _require_shape(value.values, (len(value.at), *flat.shape[1:]))
        row = torch.div(value.at, old.shape[1], rounding_mode="floor")
        spare = (row + 1) * old.shape[1] - 1  # which nobody reads
        at = torch.where(group.active.take(row), value.at, spare)
        return flat, at, value.values.to(old.dtype)
    _require_shape(value, old.shape)
    return old, None, torch.where(_wide(group.active, old), value.to(old.dtype), old)


def _require_shape(value: Tensor, shape: tuple[int, ...]) -> None:
    if value.shape != shape:
        raise ValueError(f"scratch must have shape {list(shape)}, got {list(value.shape)}")


def _wide(mask: Tensor, like: Tensor) -> Tensor:
    """A mask over the first dimension, to go with all others."""
    return mask.view(-1, *[1] * (like.dim() - 1))


def count_per_block(mask: Tensor, block: Tensor) -> Tensor:
    """Count a mask `[R, W]` block by block: `[R, 8]`."""
    counts = torch.zeros(mask.shape[0], BLOCK_COLUMNS, dtype=torch.long, device=mask.device)
    return counts.scatter_add_(1, block, mask.long())


def forced_commits(view: StepView, commit: Tensor) -> Tensor:
    """`[R, W]`: the best position of each block that must progress and commits nothing.

    The best position is the most confident one; of equals, the leftmost.
    """
    must, pos, block = view.must_progress, view.window.pos, view.window.block
    c = view.confidence.nan_to_num(0.0)
    if view.window.one_block:
        idle = must & ~(commit & must).any(dim=1, keepdim=True)
        best = c.masked_fill(~idle, -1.0).argmax(dim=1, keepdim=True)
        return idle & (pos == pos.gather(1, best))
    idle = must & (count_per_block(commit & must, block).gather(1, block) == 0)
    idle = idle & (c == _block_extreme(c.masked_fill(~idle, -1.0), block, "amax"))
    return idle & (pos == _block_extreme(pos.masked_fill(~idle, INT64_MAX), block, "amin"))


def _block_extreme(values: Tensor, block: Tensor, reduce: str) -> Tensor:
    """The largest or smallest of `values [R, W]` in the block of each position, `[R, W]`."""
    extreme = values.new_zeros(values.shape[0], BLOCK_COLUMNS)
    extreme = extreme.scatter_reduce(1, block, values, reduce, include_self=False)
    return extreme.gather(1, block)


def write_update(group: RowGroup, view: StepView, update: CanvasUpdate) -> None:
    """Write an outcome into the rows: ids, kinds, and the notes of the last commit."""
    rows, pos = group.rows, view.window.pos
    rows.ids.scatter_(1, pos, update.ids)
    rows.kind.scatter_(1, pos, update.kind)
    at = pos.masked_fill(~update.written, rows.capacity - 1)
    rows.conf.scatter_(1, at, view.confidence)
    rows.born.scatter_(1, at, rows.step[:, None].expand_as(at))
    if group.parts.edit:
        rows.edits.scatter_add_(1, pos, (update.op >= Op.REMASK).to(rows.edits.dtype))
