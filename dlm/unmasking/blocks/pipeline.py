"""Pipelined blocks: the next block starts before the last one is clean (D2F, arXiv 2508.09192)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dlm.core import BlockTable, Level, Phase, Progress
from dlm.errors import InvalidRequest
from dlm.unmasking.blocks.fixed import Fixed, append_block, next_start


@dataclass(frozen=True, slots=True)
class Pipeline(Fixed):
    """Up to eight blocks of `length` at once (D2F, arXiv 2508.09192).

    A block is added when the last one has committed a share `add` of its masks. It may commit what
    its rule is sure of, but must progress only once its predecessor has committed a share `full`.
    A filled block closes after all before it. `length=None` takes the trained block.
    """

    add: float = 0.1
    full: float = 0.95

    tier = "T2"
    multi_block = True

    def __post_init__(self) -> None:
        Fixed.__post_init__(self)  # a slotted dataclass has no working super()
        for name in ("add", "full"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidRequest(
                    "blocks", f"`{name}` must be between 0 and 1, got {getattr(self, name)}"
                )

    def advance(self, table: BlockTable, progress: Progress, params: Any) -> BlockTable:
        """Close from the left, promote after what is nearly full, append after what has begun."""
        open_count = progress.open_count
        filled = table.live & (open_count == 0)
        held = (table.live & ~filled).cumsum(dim=1) > 0  # an unfilled block stands before
        closed = int(Phase.CLEAN if progress.stores else Phase.STORED)
        phase = torch.where(table.live, int(Phase.OPEN), table.phase)
        phase = torch.where(filled & ~held, closed, phase)
        live = phase <= Phase.OPEN
        done = torch.where(live, 1 - open_count / table.masks.clamp_min(1), 1.0)  # [R, 8]
        before = torch.cat((torch.ones_like(done[:, :1]), done[:, :-1]), dim=1)
        level = torch.where(live & (before >= params.full), int(Level.FULL), table.level)
        share = _at_last_live(done, live)
        start = next_start(progress.next_unopened, self.alignment)
        ahead = progress.next_unopened < progress.length
        room = (phase != Phase.STORED).sum(dim=1) < phase.shape[1]
        wants = progress.live & (share >= params.add[:, 0]) & ahead & room
        fresh = torch.where(share >= params.full[:, 0], int(Level.FULL), int(Level.SEMI))
        table = replace(table, phase=phase, level=level)
        end = torch.minimum(progress.max_end, progress.length)
        return append_block(table, wants, start, end, fresh[:, None])


def _at_last_live(values: Tensor, live: Tensor) -> Tensor:
    """`[R]`: the entry of the rightmost live column; 1 where none is live."""
    column = torch.where(live, torch.arange(live.shape[1]), -1).amax(dim=1, keepdim=True)
    return torch.where(column >= 0, values.gather(1, column.clamp_min(0)), 1.0)[:, 0]
