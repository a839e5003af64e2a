"""How old the keys are that a forward reads and does not make: the staleness of a cache."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from dlm.core import Flags, ForwardPlan, HostRows, Ints
from dlm.engine.blockwise import FAR


class Reuse(NamedTuple):
    """What a plan does to the keys of R rows of L positions.

    `writes [R, L]` bool: positions whose keys it makes · `oldest [R]`: the step that has made the
    oldest of the keys which it reads beside them, `FAR` where there is none.
    """

    writes: Flags
    oldest: Ints

    @classmethod
    def of(cls, plan: ForwardPlan, host: HostRows) -> Reuse:
        """The keys of the canvas itself; other arms are computed at the same positions."""
        made = host.made.numpy()
        writes = np.zeros(made.shape, dtype=np.bool_)
        writes.ravel()[plan.written] = True
        ends = [0] * len(writes)
        for segment in plan.segments:
            ends[segment.row] = max(ends[segment.row], segment.keys)
        reused = ~writes & (np.arange(plan.capacity) < np.array(ends)[:, None])
        return cls(writes, np.where(reused, made, FAR).min(axis=1))

    def after(self, host: HostRows, steps: Tensor) -> list[int]:
        """Note who has made which key, once each row has taken `steps [R]` more under the plan.

        Returns how many steps old the oldest key was that any of them reused.
        """
        last, moved = host.step.numpy() - 1, steps.numpy() > 0
        np.copyto(host.made.numpy(), last[:, None], where=self.writes & moved[:, None])
        ages: list[int] = np.where(moved, last - self.oldest, 0).clip(min=0).tolist()
        return ages
