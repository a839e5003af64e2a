"""Editors: rules that revise what was committed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import torch

from dlm.core import Editor, Kind, Proposal, ScratchSpec, StepView, Unmasker
from dlm.errors import unknown_name
from dlm.unmasking.schedules import (
    SCHEDULES,
    Schedule,
    require_schedule,
    scheduled_count,
    steps_of_block,
)
from dlm.unmasking.scores import needs_of, score_of, top
from dlm.unmasking.unmask.threshold import CommitAll

ORDERS: Final = ("confidence", "entropy", "margin")
"""Scores by which it may rank."""


@dataclass(frozen=True, slots=True)
class RCR(Editor):
    """Running-confidence remasking (MDPO, arXiv 2508.13148): each step decides which tokens stay.

    Used with `unmask="everything"`: all open positions are filled, then the least confident ones of
    the whole row, by the `score` of their last commit (`confidence`, `margin`, or `entropy`, the
    lowest first), are reopened, so that as many stay open as the schedule still owes. With the
    default schedule n(s) is the difference of `floor(masks * (1 - s / steps))`. `steps` is for the
    whole answer, `power` of the schedule of that name.
    """

    tier = "T1"

    steps: int | None = None
    schedule: Schedule = "linear"
    power: float = 2.0
    score: Literal["confidence", "entropy", "margin"] = "confidence"

    scope = "row"
    clock = True
    one_block = True

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES or self.schedule == "eps":
            known = (s for s in SCHEDULES if s != "eps")
            raise unknown_name("edit: schedule", str(self.schedule), known)
        if self.score not in ORDERS:
            raise unknown_name("edit: score", str(self.score), ORDERS)
        require_schedule("edit", self.steps, power=self.power)

    @property
    def tier_as_set(self) -> str:
        """T1 for what its reference was recorded with."""
        return "T1" if (self.schedule, self.score) == ("linear", "confidence") else "T2"

    @property
    def needs(self) -> frozenset[str]:
        """The statistic that it ranks by."""
        return needs_of(self.score)

    @property
    def scratch(self) -> tuple[ScratchSpec, ...]:
        """The score of each last commit; the rows note the confidence by themselves."""
        if self.score == "confidence":
            return ()
        return (ScratchSpec("rcr.score", "token", torch.float32),)

    def refuses(self, unmask: Unmasker) -> str | None:
        """RCR reopens positions that `everything` has filled."""
        if isinstance(unmask, CommitAll):
            return None
        return "RCR reopens what is too much after all open positions were filled: use 'everything'"

    def steps_for(self, masks: int, total: int) -> int | None:
        """Those of the schedule."""
        return steps_of_block(self, masks, total)

    def edit(self, view: StepView, proposal: Proposal) -> Proposal:
        """Reopen the least confident positions of the row.

        As many stay open as the block's schedule still owes.
        """
        total = None if self.steps is None else view.params.steps
        count = scheduled_count(view, self.schedule, total, view.params)
        owed = view.eligible.sum(dim=1, keepdim=True) - count
        kept = (view.kind == Kind.COMMITTED) | proposal.commit
        if self.score == "confidence":
            running = torch.where(proposal.commit, view.confidence, view.last.conf)
            return proposal.revised(remask=top(-running, kept, owed))
        before = view.scratch["rcr.score"]
        running = before.gather(1, view.pos)
        running = torch.where(proposal.commit, score_of(self.score, view), running)
        return proposal.revised(
            remask=top(-running, kept, owed),
            scratch={"rcr.score": before.scatter(1, view.pos, running)},
        )
