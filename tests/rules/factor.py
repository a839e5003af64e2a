"""Factor decoding with the defect of the public reference code.

Its loop breaks at the first rank that fails, but where that is the last one it counts it, too, so
that a block's last two positions always fall together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlm.core import StepView
from dlm.unmasking.threshold import Factor


@dataclass(frozen=True)
class LastRankPasses(Factor):
    """As `Factor`, but the last open position passes once all before it have."""

    def passing(self, view: StepView) -> Tensor:
        count = Factor.passing(self, view).clamp_min(1)
        open_now = view.eligible.sum(dim=1, keepdim=True)
        return torch.where(count == open_now - 1, open_now, count)
