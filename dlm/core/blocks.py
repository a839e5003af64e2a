"""Block tables: the spans of a canvas that are being denoised, or wait for their store."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Self

import torch
from torch import Tensor

from dlm.core.struct import TensorStruct

BLOCK_COLUMNS = 8
"""Columns of a block table: the blocks of a row that may be live, or wait for their store."""


class Phase(IntEnum):
    """The life of a block: planned for the first time, being denoised, filled, keys final."""

    OPENING = 0
    OPEN = 1
    CLEAN = 2
    STORED = 3  # also: unused column


class Level(IntEnum):
    """The duty of a block: to progress (FULL), or to wait for others where need be (SEMI)."""

    SEMI = 0
    FULL = 1


@dataclass(frozen=True, slots=True)
class BlockTable(TensorStruct):
    """Per row up to eight blocks, left to right; unused columns are STORED with start = end = 0.

    All `[R, 8]` int64.

    start, end: the block's span of the canvas.
    phase, level: a `Phase` and a `Level`.
    step: decisions taken in the block.
    masks: its open positions when it opened.
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
        start, end, level, step, masks = (zero.clone() for _ in range(5))
        return cls(start, end, torch.full_like(zero, Phase.STORED), level, step, masks)

    @property
    def live(self) -> Tensor:
        """`[R, 8]` bool: blocks that are being denoised."""
        return self.phase <= Phase.OPEN

    @property
    def front(self) -> Tensor:
        """`[R]`: where the next block would start (the largest end)."""
        return self.end.amax(dim=1)

    def same_bounds(self, other: BlockTable) -> bool:
        """True if no block has opened, moved, been promoted or closed between the two."""
        names = ("start", "end", "phase", "level")
        return all(torch.equal(getattr(self, name), getattr(other, name)) for name in names)

    def to(self, device: torch.device | str) -> Self:
        """A copy on `device`, made at once: the host's table and its mirror never share memory."""
        columns = torch.stack([getattr(self, f.name) for f in fields(self)])
        return type(self)(*columns.to(device).unbind())
