"""What the host learns of a step at its sync."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from dlm.engine.apply import Op


class Change(NamedTuple):
    """One position that a step changed: what happened, the id now there, its confidence."""

    op: Op
    pos: int
    id: int
    conf: float


class StepReport(NamedTuple):
    """Per row of a cohort, in its order.

    `changes` ascend by position · `stopped`: the number of the stop rule that ended it (0: none) ·
    `opened`: bounds of the block that the step opened · `full`: no block is left to denoise.
    """

    changes: list[list[Change]]
    stopped: list[int]
    opened: list[tuple[int, int] | None]
    full: list[bool]


def read_changes(pos: Tensor, ids: Tensor, c: Tensor, op: Tensor) -> list[list[Change]]:
    """The changes of each row, from `[R, W]` tensors, read back in one sync."""
    rows, width = pos.shape
    at = op.flatten().nonzero()[:, 0]
    columns = (at, op.take(at), pos.take(at), ids.take(at), c.take(at))
    changes: list[list[Change]] = [[] for _ in range(rows)]
    for where, what, *rest in zip(*(t.tolist() for t in columns), strict=True):
        changes[where // width].append(Change(Op(what), *rest))
    return changes
