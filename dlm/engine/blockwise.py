"""Block by block: how much is left, and which position must fall where a block has to progress."""

from __future__ import annotations

import torch
from torch import Tensor

from dlm.core import BLOCK_COLUMNS, StepView

FAR = torch.iinfo(torch.long).max
"""Behind every position."""


def per_block(mask: Tensor, block: Tensor) -> Tensor:
    """Count a mask `[R, W]` block by block: `[R, 8]`."""
    counts = torch.zeros(mask.shape[0], BLOCK_COLUMNS, dtype=torch.long, device=mask.device)
    return counts.scatter_add_(1, block, mask.long())


def forced(view: StepView, commit: Tensor) -> Tensor:
    """`[R, W]`: the best position of each block that must progress and commits nothing.

    The best position is the most confident one; of equals, the leftmost.
    """
    idle = view.force & (per_block(commit & view.force, view.block).gather(1, view.block) == 0)
    c = view.c.nan_to_num(0.0)
    best = _block_extreme(c.masked_fill(~idle, -1.0), view.block, "amax")
    idle = idle & (c == best)
    first = _block_extreme(view.pos.masked_fill(~idle, FAR), view.block, "amin")
    return idle & (view.pos == first)


def _block_extreme(values: Tensor, block: Tensor, reduce: str) -> Tensor:
    """The largest or smallest of `values [R, W]` in the block of each position, `[R, W]`."""
    extreme = values.new_zeros(values.shape[0], BLOCK_COLUMNS)
    extreme = extreme.scatter_reduce(1, block, values, reduce, include_self=False)
    return extreme.gather(1, block)
