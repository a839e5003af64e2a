"""The sync: the host reads what the steps have written, and blocks open and close."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlm.core import BlockTable, Frame, Phase, Progress, Rows
from dlm.core.contracts import checked_max_end, checked_table
from dlm.decode.apply import Op
from dlm.decode.group import Planned, RowGroup, select_params
from dlm.errors import blaming

Array = TypeVar("Array")
"""Tensors on the device, or numpy arrays on the host."""


class StepOutput(NamedTuple, Generic[Array]):
    """The writes of a step to the rows of a group.

    op: the change of each position of the window, `[R, W]`
    pos, ids, confidence: of these positions after the step, `[R, W]`
    drawn: probability of each id where it was drawn from (None: all rows are greedy), `[R, W]`
    open_count: open positions of each block, `[R, 8]`
    stopped: 0, or 1 + the number of the stop rule that fired, `[R]`
    active: rows that took part; the others had ended since the last sync and idled, `[R]` bool
    aux: tokens that each auxiliary model has computed, row by row
    failed: a part raised, and nothing was applied
    """

    op: Array
    pos: Array
    ids: Array
    confidence: Array
    drawn: Array | None
    open_count: Array
    stopped: Array
    active: Array
    aux: Mapping[str, list[int]]
    failed: bool = False


def no_output(group: RowGroup, frame: Frame) -> StepOutput[Tensor]:
    """A step whose decisions have failed: its forward is billed, nothing else has happened."""
    none = torch.zeros_like(frame.kind)
    rows = group.rows
    return StepOutput(
        none,
        frame.window.pos,
        frame.ids,
        none.float(),
        None,
        torch.zeros_like(rows.blocks.start),
        torch.zeros_like(rows.step),
        group.active,
        group.aux_tokens,
        failed=True,
    )


class PositionChange(NamedTuple):
    """One position that a step changed.

    op: the change
    pos: the position
    id: the id that it holds now
    conf: the confidence of that id
    drawn: its probability in the distribution that it was drawn from (1: it was not drawn)
    """

    op: Op
    pos: int
    id: int
    conf: float
    drawn: float


class RowStep(NamedTuple):
    """The record of one step of one row, on the host.

    took_part: False where the row had ended since the last sync and idled
    changes: by position, ascending
    stopped: the number of the stop rule that ended the row (0: none)
    opened: bounds of the block that the step opened
    closed: a block was filled
    filled: no block is left to denoise
    error: raised where the row's blocks were to close and open
    purpose: of the row's part of the forward
    positions: computed for the row, in all its inputs
    arms: model inputs of the row
    aux: tokens that each auxiliary model has computed
    key_age: steps since the oldest key was made that the row has reused
    """

    took_part: bool
    changes: list[PositionChange]
    stopped: int
    opened: tuple[int, int] | None
    closed: bool
    filled: bool
    error: Exception | None
    purpose: str
    positions: int
    arms: int
    aux: Mapping[str, int]
    key_age: int


OPS = tuple(Op)
"""The changes by number."""


def sync(
    groups: Sequence[RowGroup], rounds: Sequence[Sequence[StepOutput[Tensor]]]
) -> list[list[list[RowStep]]]:
    """Read what the steps since the last sync have written; close and open blocks where due.

    `rounds`: the outputs of each step, group by group. Returns, for each group, the records of each
    of its rows.
    """
    outputs = list(zip(*_read_back(rounds), strict=True))
    return [_sync_group(group, own) for group, own in zip(groups, outputs, strict=True)]


def _read_back(
    rounds: Sequence[Sequence[StepOutput[Tensor]]],
) -> list[list[StepOutput[NDArray[Any]]]]:
    """Copy the outputs of all steps and groups to the host at once."""
    packed = [[_packed(output) for output in outputs] for outputs in rounds]
    tables = [table for own in packed for table in own]
    whole = tables[0] if len(tables) == 1 else torch.cat([table.view(-1) for table in tables])
    pieces = np.split(whole.cpu().numpy().ravel(), np.cumsum([t.numel() for t in tables])[:-1])
    number = iter(pieces)
    return [[_unpacked(next(number), output) for output in outputs] for outputs in rounds]


def _packed(output: StepOutput[Tensor]) -> Tensor:
    """All tensors of an output side by side, `[R, 4 W + 10]` int64, or `[R, 5 W + 10]`."""
    floats = [output.confidence] if output.drawn is None else [output.confidence, output.drawn]
    bits, rows = (n.view(torch.int32) for n in floats), (output.stopped, output.active)
    columns = (output.op, output.pos, output.ids, *bits, output.open_count)
    return torch.cat((*columns, *(number[:, None] for number in rows)), dim=1)


def _unpacked(numbers: NDArray[Any], output: StepOutput[Tensor]) -> StepOutput[NDArray[Any]]:
    """The inverse of `_packed`, on the host."""
    rows, width = output.op.shape
    table = numbers.reshape(rows, -1)
    whole, rest = np.split(table, [-10], axis=1)
    op, pos, ids, *bits = np.split(whole, whole.shape[1] // width, axis=1)
    confidence, *drawn = (column.astype(np.int32).view(np.float32) for column in bits)
    open_count, stopped, active = np.split(rest, [8, 9], axis=1)
    host = (op, pos, ids, confidence, drawn[0] if drawn else None, open_count)
    return StepOutput(*host, stopped[:, 0], active[:, 0] > 0, output.aux, output.failed)


def _changes(output: StepOutput[NDArray[Any]]) -> list[list[PositionChange]]:
    """The changes of each row."""
    changes: list[list[PositionChange]] = [[] for _ in output.op]
    at = output.op.nonzero()
    drawn = np.ones_like(output.confidence) if output.drawn is None else output.drawn
    columns = (output.op, output.pos, output.ids, output.confidence, drawn)
    values = (column[at].tolist() for column in columns)
    for row, op, *rest in zip(at[0].tolist(), *values, strict=True):
        changes[row].append(PositionChange(OPS[op], *rest))
    return changes


def _sync_group(
    group: RowGroup, outputs: Sequence[StepOutput[NDArray[Any]]]
) -> list[list[RowStep]]:
    """Advance the host's clocks and blocks of a group, and write the records of its rows."""
    planned, host, last = group.current, group.rows.host, outputs[-1]
    done = outputs[:-1] if last.failed else outputs  # only the last can have failed
    count = group.rows.count
    steps = sum((output.active for output in done), np.zeros(count, dtype=np.int64))
    host.blocks.step.numpy()[:] += planned.live * steps[:, None]
    host.step.numpy()[:] += steps
    aged = planned.key_ages
    ages = [0] * count if aged is None else aged.after(steps)
    opened = _opened(host.blocks, planned.opening and not last.failed)
    group.plan_age += len(outputs)
    closed = (planned.live & (last.open_count == 0) & (not last.failed)).any(axis=1)
    due = planned.syncs_every_step or group.steps_left == 0 or bool(closed.any())
    errors, filled = _no_errors(count), [False] * count
    if due and not last.failed:
        open_count = torch.from_numpy(last.open_count)
        errors = advance(group, open_count, torch.from_numpy(last.stopped == 0))
        filled = (~group.rows.host.blocks.live.any(dim=1)).tolist()
    return _records(planned, outputs, opened, closed.tolist(), filled, errors, ages)


def _records(
    planned: Planned,
    outputs: Sequence[StepOutput[NDArray[Any]]],
    opened: Sequence[tuple[int, int] | None],
    closed: Sequence[bool],
    filled: Sequence[bool],
    errors: Sequence[Exception | None],
    ages: Sequence[int],
) -> list[list[RowStep]]:
    """The records of each row. Blocks open in the first step, close and age after the last."""
    plan, changes = planned.plan, list(map(_changes, outputs))
    positions, end = planned.token_forwards, len(outputs) - 1
    return [
        [
            RowStep(
                took_part=bool(output.active[row]),
                changes=changes[number][row],
                stopped=int(output.stopped[row]),
                opened=opened[row] if number == 0 else None,
                closed=closed[row] if number == end else False,
                filled=filled[row] if number == end else False,
                error=errors[row] if number == end else None,
                purpose=purpose,
                positions=positions[row],
                arms=plan.arms,
                aux={name: tokens[row] for name, tokens in output.aux.items()},
                key_age=ages[row] if number == end else 0,
            )
            for number, output in enumerate(outputs)
        ]
        for row, purpose in enumerate(plan.purposes)
    ]


def advance(group: RowGroup, open_count: Tensor, live: Tensor) -> list[Exception | None]:
    """Close and open blocks on the host's table; where one has moved, mirror it and drop the plan.

    `open_count [R, 8]` open positions of each block, `live [R]`: rows that go on; both on the CPU.
    Returns what the block scheduler raised for each row, whose blocks then stay as they were.
    """
    rows = group.rows
    host, params = rows.host.with_stored_keys(), group.host_params("blocks")
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
