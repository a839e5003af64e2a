"""The sync: where the host learns what the steps have done, and where blocks open and close."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlm.core import INT64_MAX, BlockTable, Frame, HostRows, Phase, Progress, Rows
from dlm.core.contracts import checked_max_end, checked_table
from dlm.decode.apply import Op
from dlm.decode.group import RowGroup, select_params
from dlm.errors import blaming


class StepOutput(NamedTuple):
    """The writes of a step to the rows of a group, on the device.

    pos, ids, confidence: of the window, after the step, `[R, W]`
    op: the change of each position, `[R, W]`
    open_count: open positions of each block, `[R, 8]`
    stopped: 0, or 1 + the number of the stop rule that fired, `[R]`
    active: rows that took part; the others had ended since the last sync and idled, `[R]` bool
    aux: tokens that each auxiliary model has computed, row by row
    failed: a part raised, and nothing was applied
    """

    pos: Tensor
    ids: Tensor
    confidence: Tensor
    op: Tensor
    open_count: Tensor
    stopped: Tensor
    active: Tensor
    aux: Mapping[str, list[int]]
    failed: bool = False


def no_output(group: RowGroup, frame: Frame) -> StepOutput:
    """A step whose decisions have failed: its forward is billed, nothing else has happened."""
    none = torch.zeros_like(frame.kind)
    rows = group.rows
    return StepOutput(
        frame.window.pos,
        frame.ids,
        none.float(),
        none,
        torch.zeros_like(rows.blocks.start),
        torch.zeros_like(rows.step),
        group.active,
        group.aux_tokens,
        failed=True,
    )


class PositionChange(NamedTuple):
    """One position that a step changed: what happened, the id now there, its confidence."""

    op: Op
    pos: int
    id: int
    conf: float


class RowStep(NamedTuple):
    """The record of one step on the host, row by row in the group's order.

    `active`: the row took part, else it idled · `changes` ascend by position · `stopped`: the
    number of the stop rule that ended it (0: none) · `opened`: bounds of the block that the step
    opened · `filled`: no block is left to denoise · `errors`: what closing and opening the row's
    blocks raised · `purposes`, `positions`: what the row's part of the forward was for, and how
    many positions it computed · `arms`: model inputs of each row · `aux`: what each auxiliary model
    has computed · `key_ages`: how many steps old the oldest key was that the row reused.
    """

    active: list[bool]
    changes: list[list[PositionChange]]
    stopped: list[int]
    opened: list[tuple[int, int] | None]
    filled: list[bool]
    errors: list[Exception | None]
    purposes: Sequence[str]
    positions: list[int]
    arms: int
    aux: Mapping[str, list[int]]
    key_ages: list[int]


def sync(group: RowGroup, rounds: Sequence[StepOutput], device: torch.device) -> list[RowStep]:
    """Learn what the rounds since the last sync have done; close and open blocks where due."""
    planned, table = group.current, group.rows.host.blocks
    rows, last = group.rows.count, rounds[-1]
    open_count, stopped = (
        last.open_count.cpu(),
        _joined([r.stopped for r in rounds]).view(-1, rows).cpu(),
    )
    active = _joined([r.active for r in rounds]).view(-1, rows).cpu()
    steps = (active[:-1] if last.failed else active).sum(dim=0)  # only the last can have failed
    table.step.add_(planned.live * steps[:, None])
    group.rows.host.step.add_(steps)
    ages = (
        [0] * rows if planned.key_ages is None else planned.key_ages.after(group.rows.host, steps)
    )
    opened = _opened(table, planned.opening and not last.failed)
    filled, errors = [False] * rows, _no_errors(rows)
    changes = read_changes(rounds)
    group.plan_age += len(rounds)
    due = (
        planned.syncs_every_step
        or group.steps_left == 0
        or bool((planned.live & (open_count == 0)).any())
    )
    if due and not last.failed:
        errors = advance(group, open_count, stopped[-1] == 0)
        filled = (~group.rows.host.blocks.live.any(dim=1)).tolist()
    group.active = torch.ones(rows, dtype=torch.bool, device=device)
    end = len(rounds) - 1
    return [
        RowStep(
            took_part,
            changes[step * rows : (step + 1) * rows],
            rule,
            opened if step == 0 else [None] * rows,
            filled if step == end else [False] * rows,
            errors if step == end else _no_errors(rows),
            planned.plan.purposes,
            planned.plan.token_forwards,
            planned.plan.arms,
            rounds[step].aux,
            ages if step == end else [0] * rows,
        )
        for step, (took_part, rule) in enumerate(
            zip(active.tolist(), stopped.tolist(), strict=True)
        )
    ]


def read_changes(rounds: Sequence[StepOutput]) -> list[list[PositionChange]]:
    """The changes of each row, round after round, read back from `[R, W]` tensors."""
    pos = rounds[0].pos
    rows, width = pos.shape
    names = ("op", "ids", "confidence")
    op, ids, c = (_joined([getattr(r, name) for r in rounds]) for name in names)
    at = op.flatten().nonzero()[:, 0]  # places in [rounds * R, W]
    columns = (at, op.take(at), pos.take(at % (rows * width)), ids.take(at), c.take(at))
    changes: list[list[PositionChange]] = [[] for _ in range(rows * len(rounds))]
    for where, what, *rest in zip(*(t.tolist() for t in columns), strict=True):
        changes[where // width].append(PositionChange(Op(what), *rest))
    return changes


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Rounds one after the other along the first dimension; one alone is not copied."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def advance(group: RowGroup, open_count: Tensor, live: Tensor) -> list[Exception | None]:
    """Close and open blocks on the host's table; where one has moved, mirror it and drop the plan.

    `open_count [R, 8]` open positions of each block, `live [R]`: rows that go on; both on the CPU.
    Returns what the block scheduler raised for each row, whose blocks then stay as they were.
    """
    rows = group.rows
    host, params = _stored(rows.host), group.host_params("blocks")
    stored = replace(rows, host=host)
    try:
        table, errors = _advanced(group, stored, open_count, live, params), _no_errors(rows.count)
    except Exception:  # of a user's part, which cannot say whose fault it is: row by row
        table, errors = _advanced_alone(group, stored, open_count, live, params)
    kept = group.planned is not None and group.steps_left != 0
    if not kept or not table.same_bounds(rows.host.blocks):
        group.replan(stored.with_blocks(table))
    return errors


def _no_errors(rows: int) -> list[Exception | None]:
    return [None] * rows


def _advanced(
    group: RowGroup, rows: Rows, open_count: Tensor, live: Tensor, params: Any
) -> BlockTable:
    """The table after the group's block scheduler was asked."""
    scheduler, host = group.parts.blocks, rows.host
    with blaming("blocks", scheduler):
        max_end = scheduler.max_end(rows, params)
    progress = Progress(
        open_count=open_count,
        max_end=checked_max_end(scheduler, max_end, host.length),
        length=host.length,
        prompt=host.prompt,
        next_unopened=host.next_unopened,
        live=live,
        stores=group.parts.cache.stores,
    )
    with blaming("blocks", scheduler):
        table = scheduler.advance(host.blocks, progress, params)
    return checked_table(scheduler, table, host.blocks, host.length)


def _advanced_alone(
    group: RowGroup, rows: Rows, open_count: Tensor, live: Tensor, params: SimpleNamespace
) -> tuple[BlockTable, list[Exception | None]]:
    """The same, asked for each row by itself."""
    tables, errors = [], _no_errors(rows.count)
    for row in range(rows.count):
        index = torch.tensor([row])
        alone = rows.select(index)
        own = select_params(params, index)
        try:
            tables.append(_advanced(group, alone, open_count[index], live[index], own))
        except Exception as error:
            errors[row] = error
            tables.append(alone.host.blocks)
    return BlockTable.cat(tables), errors


def _opened(table: BlockTable, opening: bool) -> list[tuple[int, int] | None]:
    """Bounds of the block that each row has opened in this step, if it was opening at all."""
    bounds: list[tuple[int, int] | None] = [None] * table.phase.shape[0]
    if not opening:
        return bounds
    for row, column in (table.phase == Phase.OPENING).nonzero().tolist():
        bounds[row] = int(table.start[row, column]), int(table.end[row, column])
    return bounds


def _stored(host: HostRows) -> HostRows:
    """The host's rows after a forward has stored its keys.

    Clean blocks that were planned have their final keys, and so has everything before a live block.
    """
    table = host.blocks
    first = torch.where(table.live, table.start, INT64_MAX).amin(dim=1)
    clean = table.phase == Phase.CLEAN
    return replace(
        host,
        stored=torch.where(table.live.any(dim=1), first, host.stored),
        blocks=replace(table, phase=torch.where(clean, int(Phase.STORED), table.phase)),
    )
