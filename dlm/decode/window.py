"""The layout of a window: the positions that a step shows, the places of their logits, and what
else holds as long as a plan does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlm.core import INT64_MAX, Flags, ForwardPlan, HostRows, Ints, RowInfo, Window
from dlm.core.blocks import BlockTable, Level


def window_of(plan: ForwardPlan, host: HostRows, device: torch.device) -> Window:
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
    live, block = host.blocks.live.numpy(), _block_column(pos, host.blocks)
    row, must = np.arange(len(pos))[:, None], host.blocks.level.numpy() == Level.FULL
    slot, (shadow, branch) = has_logits.ravel().nonzero()[0], _shadow_slots(plan, pos)
    arrays = {
        "pos": pos,
        "spare": np.array(plan.capacity - 1),
        "columns": np.arange(pos.shape[1]),
        "valid": valid,
        "scored": has_logits,
        "must_progress": has_logits & must[row, block],
        "inside": valid & (pos < host.blocks.end.numpy()[row, block]),
        "logit_row": np.where(has_logits, has_logits.cumsum().reshape(pos.shape) - 1, 0),
        "block": block,
        "slot": slot,
        "shadow": shadow,
        "branch": branch,
        "row": np.concatenate((slot, shadow)) // pos.shape[1],
        "written": plan.written,
        "live": live,
    }
    moved: dict[str, Any] = {n: torch.from_numpy(a).to(device) for n, a in arrays.items()}
    if np.array_equal(arrays["must_progress"], has_logits):
        moved["must_progress"] = moved["scored"]
    return Window(
        **moved,
        dense=bool(has_logits.all()),
        one_block=bool((live.sum(axis=1) <= 1).all()),
        has_shadows=len(shadow) > 0,
        branches=int(branch.max(initial=0)),
    )


def _shown(plan: ForwardPlan, host: HostRows) -> tuple[Flags, Flags]:
    """`[R, L]` each: the positions that a window shows, and those among them that have logits."""
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


def _shadow_slots(plan: ForwardPlan, pos: Ints) -> tuple[Ints, Ints]:
    """`[S]` each: the flat places in `[R, W]` of the positions that shadow tokens predict, and the
    branches of these (0: none).
    """
    slots, branches = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for segment in plan.shadowed(arm=0):
        extra = segment.extra
        assert extra is not None
        wanted = extra.pos[extra.predict]
        branch = np.zeros_like(extra.pos) if extra.branch is None else extra.branch
        column = np.searchsorted(pos[segment.row], wanted).clip(max=pos.shape[1] - 1)
        assert np.array_equal(pos[segment.row, column], wanted), "a shadow is out of view"
        slots.append(segment.row * pos.shape[1] + column)
        branches.append(branch[extra.predict])
    return np.concatenate(slots), np.concatenate(branches)


def _block_column(pos: Ints, blocks: BlockTable) -> Ints:
    """`[R, W]`: the column of each position's block in the block table.

    It counts the live blocks that end at or before the position, from the first live column on.
    """
    live = blocks.live.numpy()
    ends = np.where(live, blocks.end.numpy(), np.iinfo(np.int64).max)
    passed = (pos[:, :, None] >= ends[:, None, :]).sum(axis=2)
    column: Ints = live.argmax(axis=1)[:, None] + passed
    return column.clip(max=live.shape[1] - 1)


class KeyAges(NamedTuple):
    """The keys that a plan makes and reuses, of R rows of L positions.

    writes: positions whose keys it makes, `[R, L]` bool.
    oldest: the step that has made the oldest of the keys which it reads beside them, `INT64_MAX`
        where there is none, `[R]`.
    key_step, step: the memory of the host's tensors, which stay the same as long as a plan holds.
    """

    writes: Flags
    oldest: Ints
    key_step: Ints
    step: Ints

    @classmethod
    def of(cls, plan: ForwardPlan, host: HostRows) -> KeyAges:
        """The keys of the canvas itself; other arms are computed at the same positions."""
        key_step = host.key_step.numpy()
        writes = np.zeros(key_step.shape, dtype=np.bool_)
        writes.ravel()[plan.written] = True
        ends = [0] * len(writes)
        for segment in plan.segments:
            ends[segment.row] = max(ends[segment.row], segment.keys)
        reused = ~writes & (np.arange(plan.capacity) < np.array(ends)[:, None])
        oldest = np.where(reused, key_step, INT64_MAX).min(axis=1)
        return cls(writes, oldest, key_step, host.step.numpy())

    def after(self, steps: Ints) -> list[int]:
        """Note the step that made each key, once each row has taken `steps [R]` more of the plan.

        Returns how many steps old the oldest key was that any of them reused.
        """
        last, moved = self.step - 1, steps > 0
        np.copyto(self.key_step, last[:, None], where=self.writes & moved[:, None])
        ages: list[int] = np.where(moved, last - self.oldest, 0).clip(min=0).tolist()
        return ages


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """A plan and all that holds as long as it does.

    computed: the plan without the rows that follow others.
    leaders: the row that is computed for each row (None: each for itself).
    row: the numbers of each row.
    step: of each row, spread over the window, `[R, W]`; the memory of the rows' clock.
    host_steps: the clocks of rows and blocks on the host, `[R]` and `[R, 8]`; the memory of its
        tensors.
    joint_needs: statistics of the logits, which may be read together with those of other groups
        (None: a guide changes the logits, or what is read depends on more than them).
    live: the blocks being denoised, `[R, 8]`.
    token_forwards: tokens computed for each row.
    key_ages: the keys that it makes and reuses (None: keys are never out of date).
    edit_budget: steps that each row may take beyond one for each of its commits, `[R]` (None: no
        part can take back what it commits, or wait for ever).
    opening: a block opens in some row, so that its end is read from the logits.
    syncs_every_step: the host must look after each step.
    """

    plan: ForwardPlan
    computed: ForwardPlan
    leaders: tuple[int, ...] | None
    window: Window
    row: RowInfo
    step: Tensor
    host_steps: tuple[Ints, Ints]
    joint_needs: frozenset[str] | None
    live: Flags
    token_forwards: list[int]
    key_ages: KeyAges | None
    edit_budget: Tensor | None
    opening: bool
    syncs_every_step: bool
