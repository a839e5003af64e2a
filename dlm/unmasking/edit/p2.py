"""Path planning: the model's own confidence decides anew in each step which tokens stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dlm.core import Editor, Kind, Proposal, StepView, Unmasker
from dlm.errors import InvalidRequest, unknown_name
from dlm.unmasking.schedules import (
    SCHEDULES,
    Schedule,
    require_schedule,
    scheduled_count,
    steps_of_block,
)
from dlm.unmasking.scores import top
from dlm.unmasking.unmask.threshold import CommitAll


@dataclass(frozen=True, slots=True)
class P2(Editor):
    """Path planning (P2, arXiv 2502.03540) with the model as its own planner: each step ranks all
    tokens of the block, old and new, and keeps the best as many as the schedule says.

    Used with `unmask="everything"`. A new token is ranked by the logarithm of its probability, an
    old one by `eta` times that of its probability in this step: 0 never reopens, 1 judges all
    alike, more is readier to reopen. The default schedule leaves `floor(masks * (1 - s / steps))`
    open after s of the answer's `steps`; `power` is that of the schedule of that name. `scope`:
    "block", or "row" for all that was generated. RCR keeps the probability of the commit instead;
    public code of P2 ranks an old token by that of a new draw at its place, which this does not.
    """

    tier = "T2"

    steps: int | None = None
    eta: float = 1.0
    schedule: Schedule = "linear"
    power: float = 2.0
    scope: Literal["block", "row"] = "block"

    clock = True
    one_block = True

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES or self.schedule == "eps":
            known = (s for s in SCHEDULES if s != "eps")
            raise unknown_name("edit: schedule", str(self.schedule), known)
        if self.scope not in ("block", "row"):
            raise InvalidRequest("edit", f"`scope` must be 'block' or 'row', got {self.scope!r}")
        require_schedule("edit", self.steps, power=self.power)
        if not self.eta >= 0:
            raise InvalidRequest("edit", f"`eta` must be at least 0, got {self.eta}")

    @property
    def needs(self) -> frozenset[str]:
        """The probability of the tokens that are there."""
        return frozenset({"prob_current"})

    def refuses(self, unmask: Unmasker) -> str | None:
        """It reopens positions that `everything` has filled."""
        if isinstance(unmask, CommitAll):
            return None
        return "P2 ranks the tokens of all open positions: use 'everything'"

    def steps_for(self, masks: int, total: int) -> int | None:
        """Those of the schedule."""
        return steps_of_block(self, masks, total)

    def edit(self, view: StepView, proposal: Proposal) -> Proposal:
        """Reopen the worst tokens, as many as the block's schedule still owes."""
        total = None if self.steps is None else view.params.steps
        count = scheduled_count(view, self.schedule, total, view.params)
        owed = view.eligible.sum(dim=1, keepdim=True) - count
        old = (view.kind == Kind.COMMITTED) & view.scored & view.window.inside
        if self.scope == "block":
            old &= view.pos >= view.in_block(view.blocks.start)
        current = view.stats.prob_current
        assert current is not None
        score = torch.where(old, view.params.eta * _log(current), _log(view.confidence))
        return proposal.revised(remask=top(-score, old | proposal.commit, owed))


def _log(probability: Tensor) -> Tensor:
    """The logarithm, finite at 0 as well."""
    return probability.double().clamp_min(1e-300).log()
