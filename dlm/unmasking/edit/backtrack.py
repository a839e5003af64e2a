"""Saber's backtracking: tokens that the model has grown less sure of are opened again."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dlm.core import Editor, Kind, Proposal, ScratchSpec, StepView, Unmasker
from dlm.errors import InvalidRequest
from dlm.unmasking.edit.revising import refuse_schedule
from dlm.unmasking.scores import top


@dataclass(frozen=True, slots=True)
class Backtrack(Editor):
    """Open the tokens of the block whose positions have lost the most confidence since the last
    step (the backtracking of Saber, arXiv 2510.18165; used with `running_mean`).

    A position's confidence is the probability of what the model would say there now, be it open or
    filled. A step that commits f tokens reopens `least`, or an eighth of f rounded up where that is
    more, but f - 1 at most: every step fills more than it opens. One that fills the block reopens
    nothing.
    """

    tier = "T2"

    least: int = 1

    scope = "block"
    scratch = (ScratchSpec("backtrack.confidence", "token", torch.float32),)

    def __post_init__(self) -> None:
        if self.least < 0:
            raise InvalidRequest("edit", f"`least` must be at least 0, got {self.least}")

    @property
    def needs(self) -> frozenset[str]:
        """Logits of what is committed; their own probabilities are not read."""
        return frozenset({"argmax"})

    def refuses(self, unmask: Unmasker) -> str | None:
        """A schedule has not counted the positions that are reopened."""
        return refuse_schedule(unmask)

    def edit(self, view: StepView, proposal: Proposal) -> Proposal:
        """Reopen fewer than the step commits, those that lost the most first."""
        inside = view.scored & view.valid & (view.pos >= view.in_block(view.blocks.start))
        before = view.scratch["backtrack.confidence"]
        loss = before.gather(1, view.pos) - view.confidence
        filled = proposal.commit.sum(dim=1, keepdim=True)
        left = view.eligible.sum(dim=1, keepdim=True) - filled
        count = (filled + 7).div(8, rounding_mode="floor").maximum(view.params.least)
        count = torch.where(left > 0, count.minimum(filled - 1), 0)
        seen = torch.where(inside, view.confidence, 0.0)
        return proposal.revised(
            remask=top(loss, inside & (view.kind == Kind.COMMITTED), count),
            scratch={"backtrack.confidence": before.scatter(1, view.pos, seen)},
        )
