"""A rule that writes what an auxiliary model says."""

from __future__ import annotations

from dataclasses import dataclass

from dlm.core import Proposal, StepView
from dlm.unmasking.unmask.guided import Guided


@dataclass(frozen=True)
class Dictated(Guided):
    """Write what the causal model would write in the first `count` open positions."""

    count: int = 3

    def propose(self, view: StepView) -> Proposal:
        first = view.eligible & (view.eligible.cumsum(dim=1) <= view.params.count)
        return Proposal(first, token=view.aux["ar"].token)
