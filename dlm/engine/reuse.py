"""How old the keys are that a forward reads and does not make: the staleness of a cache."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dlm.core import ForwardPlan, HostRows
from dlm.engine.blockwise import FAR


class Reuse(NamedTuple):
    """What a plan does to the keys of R rows of L positions, on the CPU.

    `writes [R, L]` bool: positions whose keys it makes · `oldest [R]`: the step that has made the
    oldest of the keys which it reads beside them, `FAR` where there is none.
    """

    writes: Tensor
    oldest: Tensor

    @classmethod
    def of(cls, plan: ForwardPlan, host: HostRows) -> Reuse:
        """The keys of the canvas itself; other arms are computed at the same positions."""
        writes = torch.zeros_like(host.made, dtype=torch.bool)
        writes.view(-1)[plan.written] = True
        ends = [0] * len(writes)
        for segment in plan.segments:
            ends[segment.row] = max(ends[segment.row], segment.keys)
        reads = torch.tensor(ends)
        reused = ~writes & (torch.arange(writes.shape[1]) < reads[:, None])
        return cls(writes, torch.where(reused, host.made, FAR).amin(dim=1))

    def after(self, host: HostRows, steps: Tensor) -> list[int]:
        """Note who has made which key, once each row has taken `steps [R]` more under the plan.

        Returns how many steps old the oldest key was that any of them reused.
        """
        last = host.step - 1
        made = self.writes & (steps > 0)[:, None]
        host.made.copy_(torch.where(made, last[:, None], host.made))
        ages: list[int] = torch.where(steps > 0, last - self.oldest, 0).clamp_min(0).tolist()
        return ages
