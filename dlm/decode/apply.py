"""Applying proposals: forced progress, the update of the canvas, and scratch values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Final, NamedTuple

import torch
from torch import Tensor

from dlm.core import (
    BLOCK_COLUMNS,
    INT64_MAX,
    Entries,
    Fill,
    Kind,
    Parts,
    Process,
    Proposal,
    StepView,
)
from dlm.decode.group import RowGroup
from dlm.decode.window import Planned


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
    op: the change of each (`Op`); bool where all are commits
    written: positions that took a token (committed or replaced)
    """

    ids: Tensor
    kind: Tensor
    op: Tensor
    written: Tensor


def effective(view: StepView, proposal: Proposal, mask_id: int | None) -> Proposal:
    """Cut a proposal to what takes effect.

    What is both committed and remasked stays as it was. Commits and renoising touch open positions,
    remasking and replacing committed ones; what is given is never touched. Tokens are written with
    logits alone, and MASK never.
    """
    remask, replace, renoise = proposal.remask, proposal.replace, proposal.renoise
    token = view.token if proposal.token is None else proposal.token
    is_open, filled = view.kind >= Kind.MASK, view.kind == Kind.COMMITTED
    may_write = view.scored if mask_id is None else view.scored & (token != mask_id)
    commit = proposal.commit & is_open & may_write
    if replace is not None:
        replace = replace & filled & may_write & (token != view.ids)
    if remask is not None:
        commit, remask = commit & ~remask, remask & filled
        replace = None if replace is None else replace & ~remask
    if renoise is not None:
        renoise = renoise & is_open & ~commit
    return proposal._replace(commit=commit, remask=remask, replace=replace, renoise=renoise)


def resolve(view: StepView, proposal: Proposal, process: Process) -> CanvasUpdate:
    """The canvas after a proposal all of which takes effect."""
    written, ids, fresh = proposal.commit, view.ids, None
    kind, op = view.kind.masked_fill(written, Kind.COMMITTED), written
    if proposal.remask is not None:
        fresh = proposal.remask
        kind, op = kind.masked_fill(fresh, process.open_kind), _marked(op, fresh, Op.REMASK)
    if proposal.replace is not None:
        written, op = written | proposal.replace, _marked(op, proposal.replace, Op.REPLACE)
    if proposal.renoise is not None:
        op = _marked(op, proposal.renoise, Op.RENOISE)
        fresh = proposal.renoise if fresh is None else fresh | proposal.renoise
    if fresh is not None:
        prior = process.prior(view.row.seed, view.row.path, view.pos, view.row.step)
        ids = torch.where(fresh, prior, ids)
    return CanvasUpdate(torch.where(written, view.token, ids), kind, op, written)


def _marked(op: Tensor, where: Tensor, change: Op) -> Tensor:
    """The changes with another one, as numbers."""
    return op.to(torch.int8).masked_fill(where, change)


EDIT_STEPS: Final = (32, 4)
"""Steps beyond its commits that a row may spend on edits: this many, and this many a position."""


def edit_budget(group: RowGroup) -> Tensor:
    """`[R]`: the steps that a row may take beyond one for each of its commits.

    `EDIT_STEPS`, the steps of the schedules, and for each position the steps for which editors may
    hold its block.
    """
    (base, each), length, parts = EDIT_STEPS, group.rows.length, group.calls
    steps, held = torch.zeros_like(length), torch.full_like(length, each)
    for _, params in (*parts["unmask"], *parts["edit"]):
        for name, total in (("steps", steps), ("post_steps", held)):
            number = getattr(params, name, None)
            if isinstance(number, Tensor) and number.shape == (len(total), 1):
                total += number[:, 0].long()
    return base + steps + held * length + group.rows.grace


STEP_LIMIT: Final = (64, 8)
"""The step limit of a row: this many steps, this many for each position, and the steps that its
parts' schedules ask for. A row that takes more is treated as stuck.
"""


def step_limit(parts: Parts, length: int) -> int:
    """More steps than any row takes that has an end, on a canvas of `length` positions."""
    base, each = STEP_LIMIT
    planned = sum(part.steps or 0 for part in (parts.unmask, *parts.edit))
    return base + (each + sum(editor.post_steps for editor in parts.edit)) * length + planned


def with_progress(
    group: RowGroup, planned: Planned, view: StepView, proposal: Proposal, mask_id: int | None
) -> Proposal:
    """Cut a proposal to what takes effect, and see to it that rows come to an end.

    A step without a net change commits the best position of each block that must progress; parts
    on a schedule are exempt. After `edit_budget` steps more than its commits need, a row commits in
    every step, on a schedule or not, and no edit passes.
    """
    if group.active is not group.everyone:
        proposal = proposal.of_rows(group.active)
    budget = planned.edit_budget
    if budget is None:
        trusted = proposal.commits_alone and not group.parts.guide  # a guide may leave MASK alone
        return proposal if trusted else effective(view, proposal, mask_id)
    open_now = (group.rows.kind >= Kind.MASK).sum(dim=1)
    late = view.row.step >= view.row.initial_masks - open_now + budget
    proposal = effective(view, proposal.without_edits(late), mask_id)
    must = late if group.shared.paced else late | ~_edited(proposal)
    view = view._replace(must_progress=view.must_progress & must[:, None])
    forced = forced_commits(view, proposal.commit)
    renoise, token = proposal.renoise, proposal.token
    return proposal._replace(
        commit=proposal.commit | forced,
        token=None if token is None else torch.where(forced, view.token, token),
        renoise=None if renoise is None else renoise & ~forced,
    )


def fill_early(
    group: RowGroup, view: StepView, proposal: Proposal, mask_id: int | None
) -> tuple[Proposal, Tensor]:
    """Let early commits add all that is eligible to a proposal that takes effect.

    Returns for each row the number of the one that fills the last of its canvas, `[R]` (0: none).
    """
    stopped = group.unstopped
    for number, (fill, params) in enumerate(group.calls["early"], start=1):
        kind = view.kind.masked_fill(proposal.commit, Kind.COMMITTED)
        answer: Fill = fill(view._replace(kind=kind, params=params))
        open_now = view.eligible & ~proposal.commit
        rows = answer.rows & group.active & open_now.any(dim=1)
        proposal = proposal._replace(
            commit=proposal.commit | (open_now & rows[:, None]),
            scratch={**(proposal.scratch or {}), **(answer.scratch or {})},
        )
        proposal = effective(view, proposal, mask_id)
        left = (group.rows.kind >= Kind.MASK).sum(dim=1) - proposal.commit.sum(dim=1)
        if proposal.remask is not None:
            left = left + proposal.remask.sum(dim=1)
        stopped = torch.where(rows & (left == 0) & (stopped == 0), number, stopped)
    return proposal, stopped


def _edited(proposal: Proposal) -> Tensor:
    """`[R]`: rows of which an edit takes effect."""
    edited = torch.zeros_like(proposal.commit)
    for mask in (proposal.remask, proposal.replace, proposal.renoise):
        edited = edited if mask is None else edited | mask
    return edited.any(dim=1)


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
        return idle & (view.window.columns == best)
    idle = must & (count_per_block(commit & must, block).gather(1, block) == 0)
    idle = idle & (c == _block_extreme(c.masked_fill(~idle, -1.0), block, "amax"))
    return idle & (pos == _block_extreme(pos.masked_fill(~idle, INT64_MAX), block, "amin"))


def _block_extreme(values: Tensor, block: Tensor, reduce: str) -> Tensor:
    """The largest or smallest of `values [R, W]` in the block of each position, `[R, W]`."""
    extreme = values.new_zeros(values.shape[0], BLOCK_COLUMNS)
    extreme = extreme.scatter_reduce(1, block, values, reduce, include_self=False)
    return extreme.gather(1, block)


def write_update(group: RowGroup, planned: Planned, view: StepView, update: CanvasUpdate) -> None:
    """Write an outcome into the rows: ids, kinds, and the notes of the last commit."""
    rows, pos = group.rows, view.window.pos
    rows.ids.scatter_(1, pos, update.ids)
    rows.kind.scatter_(1, pos, update.kind)
    at = torch.where(update.written, pos, view.window.spare)
    rows.conf.scatter_(1, at, view.confidence)
    rows.born.scatter_(1, at, planned.step)
    if group.parts.edit:
        rows.edits.scatter_add_(1, pos, (update.op >= Op.REMASK).to(rows.edits.dtype))
