"""Which positions a step shows, and where their logits are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlm.core.blocks import BlockTable, Level
from dlm.core.plan import Flags, ForwardPlan, Ints
from dlm.core.rows import HostRows


class Window(NamedTuple):
    """Which positions a step shows: the geometry of a frame, fixed as long as the plan is.

    pos `[R, W]` ascending, the spare column where `valid` is False · scored `[R, W]`: has logits ·
    full `[R, W]`: scored and in a block that must progress · logit_row `[R, W]` row of the logits
    (0 where not scored) · block `[R, W]` column of the block table that holds the position; what
    earlier blocks left open belongs to the first live block. slot `[N]`: flat place in `[R, W]` of
    each row of the logits · shadow `[S]`: the same for the logits of shadow tokens, which follow ·
    row `[N + S]`: the row of each · written `[T]`: flat canvas places whose keys the forward
    stores · live `[R, 8]`: the blocks that are being denoised.
    """

    pos: Tensor
    valid: Tensor
    scored: Tensor
    full: Tensor
    logit_row: Tensor
    block: Tensor
    slot: Tensor
    shadow: Tensor
    row: Tensor
    written: Tensor
    live: Tensor

    @classmethod
    def of(cls, plan: ForwardPlan, host: HostRows, device: torch.device) -> Window:
        """The window of a plan: the live blocks, and what else it predicts.

        With `host.whole_row`, all generated positions before the blocks' end. Columns are laid out
        at a sync, in numpy, and then moved.
        """
        shown, scored = _shown(plan, host)
        counts = shown.sum(axis=1)
        valid = np.arange(max(1, counts.max())) < counts[:, None]
        pos = np.full(valid.shape, plan.capacity - 1)
        pos[valid] = shown.nonzero()[1]
        has_logits = np.zeros_like(valid)
        has_logits[valid] = scored[shown]
        block = _block_column(pos, host.blocks)
        must = host.blocks.level.numpy() == Level.FULL
        slot, shadow = has_logits.ravel().nonzero()[0], _shadow_slots(plan, pos)
        arrays = {
            "pos": pos,
            "valid": valid,
            "scored": has_logits,
            "full": has_logits & must[np.arange(len(pos))[:, None], block],
            "logit_row": np.where(has_logits, has_logits.cumsum().reshape(pos.shape) - 1, 0),
            "block": block,
            "slot": slot,
            "shadow": shadow,
            "row": np.concatenate((slot, shadow)) // pos.shape[1],
            "written": plan.written,
            "live": host.blocks.live.numpy(),
        }
        moved = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        return cls(**moved)


def _shown(plan: ForwardPlan, host: HostRows) -> tuple[Flags, Flags]:
    """`[R, L]` each: which positions a window shows, and which of them have logits."""
    scored = np.zeros((len(host.prompt), plan.capacity), dtype=np.bool_)
    for segment in plan.segments:
        scored[segment.row, segment.predict] = True
    at, prompt, table = np.arange(plan.capacity), host.prompt.numpy(), host.blocks
    if host.whole_row:
        start, end = prompt, table.end.numpy().max(axis=1)
    else:
        live = table.live.numpy()
        start = np.where(live, table.start.numpy(), plan.capacity).min(axis=1)
        start = np.maximum(start, prompt)
        end = np.where(live, table.end.numpy(), 0).max(axis=1)
    shown = scored | ((at >= start[:, None]) & (at < end[:, None]))
    return shown, scored


def _shadow_slots(plan: ForwardPlan, pos: Ints) -> Ints:
    """`[S]`: the flat places in `[R, W]` of the positions that shadow tokens stand for."""
    slots = [np.zeros(0, dtype=np.int64)]
    for segment in plan.shadowed(arm=0):
        assert segment.extra is not None
        wanted = segment.extra.pos
        column = np.searchsorted(pos[segment.row], wanted).clip(max=pos.shape[1] - 1)
        assert np.array_equal(pos[segment.row, column], wanted), "a shadow is out of view"
        slots.append(segment.row * pos.shape[1] + column)
    return np.concatenate(slots)


def _block_column(pos: Ints, blocks: BlockTable) -> Ints:
    """`[R, W]`: the column of each position's block in the block table.

    It counts the live blocks that end at or before the position, from the first live column on.
    """
    live = blocks.live.numpy()
    ends = np.where(live, blocks.end.numpy(), np.iinfo(np.int64).max)
    passed = (pos[:, :, None] >= ends[:, None, :]).sum(axis=2)
    column: Ints = live.argmax(axis=1)[:, None] + passed
    return column.clip(max=live.shape[1] - 1)
