"""The outputs of steps on the device, and the records and events of rows that they become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlm.core import Event, EventType, Frame
from dlm.decode.apply import Op
from dlm.decode.group import RowGroup
from dlm.decode.top import pairs_of

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
    top: the most likely ids of each position, and the bits of their probabilities (None: no row
        asks for them), `[R, W, 2 K]`
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
    top: Array | None = None
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
    top: the most likely ids there, with their probabilities (empty where no row asks for them)
    """

    op: Op
    pos: int
    id: int
    conf: float
    drawn: float
    top: tuple[tuple[int, float], ...] = ()


class RowStep(NamedTuple):
    """The record of one step of one row, on the host.

    took_part: False where the row had ended since the last sync and idled
    changes: by position, ascending
    stopped: the number of the stop rule that ended the row (0: none)
    opened: bounds of the block that the step opened
    closed: a block was filled
    filled: no block is left to denoise
    ongoing: a block has open positions, or an editor holds it
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
    ongoing: bool
    error: Exception | None
    purpose: str
    positions: int
    arms: int
    aux: Mapping[str, int]
    key_age: int


OPS = tuple(Op)
"""The changes by number."""


def read_back(
    rounds: Sequence[Sequence[StepOutput[Tensor]]],
) -> list[list[StepOutput[NDArray[Any]]]]:
    """Copy the outputs of all steps and groups to the host at once."""
    tables = [pack(output) for outputs in rounds for output in outputs]
    whole = tables[0] if len(tables) == 1 else torch.cat([table.view(-1) for table in tables])
    numbers, table, at = whole.cpu().numpy().ravel(), iter(tables), 0
    found: list[list[StepOutput[NDArray[Any]]]] = []
    for outputs in rounds:
        found.append([])
        for output in outputs:
            end = at + next(table).numel()
            found[-1].append(unpack(numbers[at:end], output))
            at = end
    return found


def pack(output: StepOutput[Tensor]) -> Tensor:
    """All tensors of an output side by side, `[R, 4 W + 10]` int64; W more columns where tokens are
    drawn, and 2 K W more with the most likely ids.
    """
    columns = [output.op, output.pos, output.ids, output.confidence.view(torch.int32)]
    if output.drawn is not None:
        columns.append(output.drawn.view(torch.int32))
    if output.top is not None:
        columns.append(output.top.flatten(1))
    columns += [output.open_count, output.stopped[:, None], output.active[:, None]]
    return torch.cat(columns, dim=1)


def unpack(numbers: NDArray[Any], output: StepOutput[Tensor]) -> StepOutput[NDArray[Any]]:
    """The inverse of `pack`, on the host."""
    rows, width = output.op.shape
    whole, rest = np.split(numbers.reshape(rows, -1), [-10], axis=1)
    count = 4 if output.drawn is None else 5
    op, pos, ids, conf, *drawn = np.split(whole[:, : count * width], count, axis=1)
    open_count, stopped, active = np.split(rest, [8, 9], axis=1)
    return StepOutput(
        op,
        pos,
        ids,
        conf.astype(np.int32).view(np.float32),
        drawn[0].astype(np.int32).view(np.float32) if drawn else None,
        open_count,
        stopped[:, 0],
        active[:, 0] > 0,
        output.aux,
        None if output.top is None else whole[:, count * width :].reshape(rows, width, -1),
        output.failed,
    )


def changes_of(output: StepOutput[NDArray[Any]]) -> list[list[PositionChange]]:
    """The changes of each row."""
    changes: list[list[PositionChange]] = [[] for _ in output.op]
    at = output.op.nonzero()
    values = zip(
        at[0].tolist(),
        output.op[at].tolist(),
        output.pos[at].tolist(),
        output.ids[at].tolist(),
        output.confidence[at].tolist(),
        [1.0] * len(at[0]) if output.drawn is None else output.drawn[at].tolist(),
        [()] * len(at[0]) if output.top is None else pairs_of(output.top[at]),
        strict=True,
    )
    for row, op, pos, token, conf, drawn, top in values:
        changes[row].append(PositionChange(OPS[op], pos, token, conf, drawn, top))
    return changes


EVENTS: Final[Mapping[Op, EventType]] = MappingProxyType(
    {Op.COMMIT: "commit", Op.REMASK: "remask", Op.REPLACE: "replace", Op.RENOISE: "renoise"}
)


def events_of(
    row: int, step: int, changes: Sequence[PositionChange], *, drawn: bool, top: int
) -> list[Event]:
    """The events of one step of a row: one for each thing that happened, in the order of `Op`.

    drawn: its tokens are drawn, so that commits carry the probabilities of that.
    top: commits carry this many most likely ids.
    """
    events = []
    for op, alike in groupby(sorted(changes, key=itemgetter(0)), key=itemgetter(0)):
        _, pos, ids, conf, odds, likely = zip(*alike, strict=True)
        writes = op in (Op.COMMIT, Op.REPLACE)
        first = tuple(entries[:top] for entries in likely) if top else ()
        said = (conf, odds if drawn else (), first) if writes else ()
        events.append(Event(EVENTS[op], row, step, pos, ids, *said))
    return events
