"""Guided Diffusion (FlashDLM, arXiv 2505.21467): a causal model decides how many drafts stay.

The diffusion model drafts, left to right from the first open position; the causal model reads the
drafts and all up to the first one it would not have written itself are committed, at least one.
"""

from __future__ import annotations

from dataclasses import dataclass

from dlm.core import Proposal, StepView, Unmasker


@dataclass(frozen=True)
class Guided(Unmasker):
    """Accept a draft while the causal model would write it, or gives it at least `share` of the
    probability of what it would write (1.0: exactly its own choice, but for ties).
    """

    share: float = 1.0

    needs = frozenset({"ar"})

    def propose(self, view: StepView) -> Proposal:
        said = view.aux["ar"]
        stops = view.eligible & (said.draft_confidence < view.params.share * said.confidence)
        order = view.eligible.cumsum(dim=1)
        refused = stops.cumsum(dim=1) > 0
        return Proposal(view.eligible & (~refused | (order == 1)))


@dataclass(frozen=True)
class Dictated(Guided):
    """Write what the causal model would write in the first `count` open positions."""

    count: int = 3

    def propose(self, view: StepView) -> Proposal:
        first = view.eligible & (view.eligible.cumsum(dim=1) <= view.params.count)
        return Proposal(first, token=view.aux["ar"].token)
