"""Block tables: the spans of a canvas that are being denoised, or wait for their store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum

import torch
from torch import Tensor

BLOCK_COLUMNS = 8
"""Columns of a block table: how many blocks of a row may be live (or waiting for their store) at
once.
"""


class Phase(IntEnum):
    """The life of a block: planned for the first time, being denoised, filled, keys final."""

    OPENING = 0
    OPEN = 1
    CLEAN = 2
    STORED = 3  # also: unused column


class Level(IntEnum):
    """Whether a block must progress (FULL) or may wait for its predecessors (SEMI)."""

    SEMI = 0
    FULL = 1


@dataclass(frozen=True, slots=True)
class BlockTable:
    """Per row up to eight blocks, left to right; unused columns are STORED with start = end = 0.

    All `[R, 8]` int64. `step` counts the decisions taken in the block, `masks` its open positions
    when it opened.
    """

    start: Tensor
    end: Tensor
    phase: Tensor
    level: Tensor
    step: Tensor
    masks: Tensor

    @classmethod
    def empty(cls, rows: int, device: torch.device | str = "cpu") -> BlockTable:
        """A table without blocks."""
        zero = torch.zeros(rows, BLOCK_COLUMNS, dtype=torch.long, device=device)
        return cls(
            zero,
            zero.clone(),
            torch.full_like(zero, Phase.STORED),
            zero.clone(),
            zero.clone(),
            zero.clone(),
        )

    @property
    def live(self) -> Tensor:
        """`[R, 8]` bool: blocks that are being denoised."""
        return self.phase <= Phase.OPEN

    @property
    def front(self) -> Tensor:
        """`[R]`: where the next block would start (the largest end)."""
        return self.end.amax(dim=1)

    def same_bounds(self, other: BlockTable) -> bool:
        """Whether no block has opened, moved, been promoted or closed between the two."""
        names = ("start", "end", "phase", "level")
        return all(torch.equal(getattr(self, name), getattr(other, name)) for name in names)

    def select(self, index: Tensor) -> BlockTable:
        """The rows `index [r]`, in that order."""
        return BlockTable(*(getattr(self, f.name).index_select(0, index) for f in fields(self)))

    def to(self, device: torch.device | str) -> BlockTable:
        """A copy on `device`: the host's table and its mirror never share memory."""
        columns = torch.stack([getattr(self, f.name) for f in fields(self)])
        return BlockTable(*columns.to(device).unbind())

    @classmethod
    def cat(cls, tables: Sequence[BlockTable]) -> BlockTable:
        """Stack the rows of `tables`."""
        return cls(*(torch.cat([getattr(t, f.name) for t in tables]) for f in fields(cls)))
