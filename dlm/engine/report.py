"""What the host learns of a step at its sync."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Change(NamedTuple):
    """One position that a step changed: committed with its confidence, or reopened (`conf` is
    None).
    """

    pos: int
    id: int
    conf: float | None


class StepReport(NamedTuple):
    """Per row of a cohort: its changes, ascending by position; which stop rule ended it (0:
    none); the block it opened.
    """

    changes: list[list[Change]]
    stopped: list[int]
    opened: list[tuple[int, int] | None]

    @classmethod
    def of(
        cls,
        pos: Tensor,
        ids: Tensor,
        c: Tensor,
        committed: Tensor,
        remasked: Tensor,
        stopped: Tensor,
        opened: list[tuple[int, int] | None],
    ) -> StepReport:
        """Read the masks `[R, W]` back in one sync. `stopped [R]` is on the CPU."""
        rows, width = pos.shape
        at = (committed | remasked).flatten().nonzero()[:, 0]
        columns = (at, pos.take(at), ids.take(at), committed.take(at), c.take(at))
        changes: list[list[Change]] = [[] for _ in range(rows)]
        for where, position, token, new, conf in zip(*(t.tolist() for t in columns), strict=True):
            changes[where // width].append(Change(position, token, conf if new else None))
        return cls(changes, stopped.tolist(), opened)
