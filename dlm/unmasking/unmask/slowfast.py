"""Slow and fast phases in turn: look how far the model is certain, then work only there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlm.core import Proposal, ScratchSpec, StepView, Unmasker
from dlm.errors import InvalidRequest
from dlm.unmasking.scores import require_ordered, top

NEAR = 1
"""Two ends that differ by no more agree: the deviation of the two is below 1."""


@dataclass(frozen=True, slots=True)
class SlowFast(Unmasker):
    """Explore until it is clear how far the model is certain, then fill that cycle alone
    (SlowFast sampling, arXiv 2506.10848).

    In the slow phase every step estimates a cycle's end: after the last open position of the block
    with confidence >= `low`. When two estimates in turn agree, or after `explore` steps, the fast
    phase fills the positions before that end, and the next slow phase begins. Every step commits
    what reaches `threshold`, if that is two positions at least, else the most confident one. How
    the fast phase may save computation is left to the cache.
    """

    tier = "T2"

    threshold: float = 0.9
    low: float = 0.3
    explore: int = 6

    scratch = (
        ScratchSpec("slowfast_end", "row", torch.long),  # of the cycle; 0: it is explored
        ScratchSpec("slowfast_estimate", "row", torch.long, fill=-1),
        ScratchSpec("slowfast_explored", "row", torch.long),
    )

    def __post_init__(self) -> None:
        require_ordered("low", self.low, "threshold", self.threshold)
        if self.explore < 1:
            raise InvalidRequest("unmask", f"`explore` must be at least 1, got {self.explore}")

    def propose(self, view: StepView) -> Proposal:
        """The positions that are sure enough, of the cycle or, in a slow phase, of all."""
        end, before, explored = self._state(view)
        cycle = view.eligible & (view.pos < end)
        fast = cycle.any(dim=1, keepdim=True)
        among = torch.where(fast, cycle, view.eligible)
        sure = among & (view.confidence >= view.params.threshold)
        enough = sure.sum(dim=1, keepdim=True) >= 2
        commit = torch.where(enough, sure, top(view.confidence, among, 1))
        explored = torch.where(fast | (end > 0), 0, explored) + ~fast
        before = torch.where(end > 0, -1, before)
        found = self._estimate(view)
        agreed = (before >= 0) & ((found - before).abs() <= NEAR)
        settled = agreed | (explored >= view.params.explore)
        kept = {
            "slowfast_end": torch.where(fast, end, torch.where(settled, found, 0))[:, 0],
            "slowfast_estimate": torch.where(fast, -1, found)[:, 0],
            "slowfast_explored": explored[:, 0],
        }
        return Proposal(commit, scratch=kept)

    def _state(self, view: StepView) -> tuple[Tensor, Tensor, Tensor]:
        """`[R, 1]` each: the cycle's end, the last estimate, steps explored. Blocks start anew."""
        (step,) = view.of_first_block(view.blocks.step)
        names = [spec.name for spec in self.scratch]
        end, before, explored = (view.scratch[name][:, None] for name in names)
        fresh = step == 0
        return (
            torch.where(fresh, 0, end),
            torch.where(fresh, -1, before),
            torch.where(fresh, 0, explored),
        )

    def _estimate(self, view: StepView) -> Tensor:
        """`[R, 1]`: after the last position that is not hopeless; the first one, where all are."""
        hopeful = view.eligible & (view.confidence >= view.params.low)
        last = torch.where(hopeful, view.pos, -1).amax(dim=1, keepdim=True)
        first = view.pos.gather(1, view.eligible.int().argmax(dim=1, keepdim=True))
        return last.maximum(first) + 1
