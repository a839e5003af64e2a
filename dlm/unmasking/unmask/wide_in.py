"""WINO's wide in: commit much at once, as an editor takes back what does not hold."""

from __future__ import annotations

from dataclasses import dataclass

from dlm.core import Proposal, StepView, Unmasker
from dlm.errors import InvalidRequest
from dlm.unmasking.scores import require_share, top


@dataclass(frozen=True, slots=True)
class WideIn(Unmasker):
    """Commit all that is more confident than `threshold`, up to a `share` of what is open (the
    first half of WINO, arXiv 2507.18578; used with the editor `narrow_out`).

    The share is at least `least` and at most `most` positions. The best one where none is sure.
    """

    tier = "T2"

    threshold: float = 0.6
    share: float = 0.7
    least: int = 5
    most: int = 20

    def __post_init__(self) -> None:
        require_share("threshold", self.threshold)
        require_share("share", self.share)
        if not 1 <= self.least <= self.most:
            raise InvalidRequest(
                "unmask",
                f"`least` and `most` must be 1 <= least <= most, got {self.least} and {self.most}",
            )

    def propose(self, view: StepView) -> Proposal:
        """The most confident of the sure positions."""
        params, masks = view.params, view.eligible.sum(dim=1, keepdim=True)
        cap = (masks * params.share).long().maximum(params.least).minimum(params.most)
        sure = view.eligible & (view.confidence > params.threshold)
        return Proposal(sure & top(view.confidence, view.eligible, cap))
