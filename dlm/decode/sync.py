"""The sync: the host reads what the steps have written, and blocks open and close."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlm.core import BlockTable, Phase, Progress, Rows
from dlm.core.contracts import checked_max_end, checked_table
from dlm.decode.group import RowGroup, select_params
from dlm.decode.outputs import RowStep, StepOutput, changes_of, read_back
from dlm.decode.window import Planned
from dlm.errors import blaming


def sync(
    groups: Sequence[RowGroup], rounds: Sequence[Sequence[StepOutput[Tensor]]]
) -> list[list[list[RowStep]]]:
    """Read what the steps since the last sync have written; close and open blocks where due.

    `rounds`: the outputs of each step, group by group. Returns, for each group, the records of each
    of its rows.
    """
    outputs = list(zip(*read_back(rounds), strict=True))
    return [_sync_group(group, own) for group, own in zip(groups, outputs, strict=True)]


def _sync_group(
    group: RowGroup, outputs: Sequence[StepOutput[NDArray[Any]]]
) -> list[list[RowStep]]:
    """Advance the host's clocks and blocks of a group, and write the records of its rows."""
    planned, host, last = group.current, group.rows.host, outputs[-1]
    done = outputs[:-1] if last.failed else outputs  # only the last can have failed
    count = group.rows.count
    steps = np.zeros(count, dtype=np.int64)
    for output in done:
        steps += output.active
    row_steps, block_steps = planned.host_steps
    row_steps += steps
    block_steps += planned.live * steps[:, None]
    aged = planned.key_ages
    ages = [0] * count if aged is None else aged.after(steps)
    opened: list[tuple[int, int] | None] = [None] * count
    if planned.opening and not last.failed:
        opened = _opened(host.blocks)
    group.plan_age += len(outputs)
    closed = (planned.live & (last.open_count == 0) & (not last.failed)).any(axis=1)
    due = planned.syncs_every_step or group.steps_left == 0 or bool(closed.any())
    errors: list[Exception | None] = [None] * count
    filled = [False] * count
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
    plan, end = planned.plan, len(outputs) - 1
    records: list[list[RowStep]] = [[] for _ in plan.purposes]
    for number, output in enumerate(outputs):
        first, last, changes = number == 0, number == end, changes_of(output)
        for row, purpose in enumerate(plan.purposes):
            step = RowStep(
                took_part=bool(output.active[row]),
                changes=changes[row],
                stopped=int(output.stopped[row]),
                opened=opened[row] if first else None,
                closed=closed[row] if last else False,
                filled=filled[row] if last else False,
                ongoing=bool(output.open_count[row].any()),
                error=errors[row] if last else None,
                purpose=purpose,
                positions=planned.token_forwards[row],
                arms=plan.arms,
                aux=_of_row(output.aux, row),
                key_age=ages[row] if last else 0,
            )
            records[row].append(step)
    return records


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


def _of_row(aux: Mapping[str, list[int]], row: int) -> Mapping[str, int]:
    """The tokens that each auxiliary model has computed for a row."""
    return {name: tokens[row] for name, tokens in aux.items()} if aux else {}


def _opened(table: BlockTable) -> list[tuple[int, int] | None]:
    """Bounds of the block that each row has opened in this step."""
    bounds: list[tuple[int, int] | None] = [None] * table.phase.shape[0]
    for row, column in (table.phase == Phase.OPENING).nonzero().tolist():
        bounds[row] = int(table.start[row, column]), int(table.end[row, column])
    return bounds
