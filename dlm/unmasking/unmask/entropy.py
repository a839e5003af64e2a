"""Unmasking by entropy: how much the model still hesitates."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dlm.core import Proposal, StepView, Unmasker
from dlm.errors import InvalidRequest
from dlm.unmasking.scores import Score, needs_of, score_of, top

ORDERS: tuple[Score, ...] = ("entropy", "confidence", "margin")


@dataclass(frozen=True, slots=True)
class EntropyBound(Unmasker):
    """Commit the best positions as long as what they may depend on each other is bounded
    (EB-Sampler, arXiv 2505.24857, eq. 6).

    Of the positions in the `order` of their score, the largest number is taken whose summed entropy
    less its largest term is at most `bound` (nats), an upper bound of their joint mutual
    information. One alone always is.
    """

    tier = "T2"

    bound: float = 0.1
    order: Score = "entropy"

    def __post_init__(self) -> None:
        if not self.bound >= 0:
            raise InvalidRequest("unmask", f"`bound` must be at least 0, got {self.bound}")
        if self.order not in ORDERS:
            raise InvalidRequest(
                "unmask", f"`order` must be one of {', '.join(ORDERS)}, got {self.order!r}"
            )

    @property
    def needs(self) -> frozenset[str]:
        """The entropy, and what the order reads."""
        return needs_of(self.order) | {"entropy"}

    def propose(self, view: StepView) -> Proposal:
        """A prefix of the ranks: what is left out of the sum never shrinks along them."""
        assert view.stats.entropy is not None
        score = score_of(self.order, view).masked_fill(~view.eligible, -torch.inf)
        order = score.argsort(dim=1, descending=True, stable=True)
        entropy = (
            view.stats.entropy.masked_fill(~view.eligible, torch.inf).gather(1, order).double()
        )
        rest = entropy.cumsum(dim=1) - entropy.cummax(dim=1).values
        within = rest.nan_to_num(nan=torch.inf) <= view.params.bound
        return Proposal(view.eligible & torch.zeros_like(within).scatter(1, order, within))


@dataclass(frozen=True, slots=True)
class LowEntropy(Unmasker):
    """Commit every position with entropy <= `threshold` nats, and in blocks that must progress the
    most certain one (d3LLM, arXiv 2601.07568).
    """

    tier = "T2"

    threshold: float = 0.45

    needs = frozenset({"entropy"})

    def __post_init__(self) -> None:
        if not self.threshold >= 0:
            raise InvalidRequest("unmask", f"`threshold` must be at least 0, got {self.threshold}")

    def propose(self, view: StepView) -> Proposal:
        """All certain positions; of a row that has none, the most certain one it must take."""
        assert view.stats.entropy is not None
        certain = view.eligible & (view.stats.entropy <= view.params.threshold)
        none = ~(certain & view.must_progress).any(dim=1, keepdim=True)
        return Proposal(certain | (none & top(-view.stats.entropy, view.must_progress, 1)))
