"""Guided Diffusion: a causal model decides how many drafts of the diffusion model stay."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlm.core import Proposal, StepView, Unmasker
from dlm.errors import InvalidRequest
from dlm.unmasking.scores import require_share

AUX = "ar"


@dataclass(frozen=True, slots=True)
class Guided(Unmasker):
    """Commit the drafts from the first open position on up to the first one that a causal model
    would not have written (Guided Diffusion of FlashDLM, arXiv 2505.21467).

    The causal model is the auxiliary model `ar`; it reads the drafts in a forward of its own, and
    decides nothing but their number: the tokens are the diffusion model's, and the first one is
    always committed. It would have written a draft that has at least `share` of the probability of
    its own choice (1: no less than that) and is among its `rank` most likely ids (None: any).
    """

    tier = "T2"

    share: float = 1.0
    rank: int | None = None

    def __post_init__(self) -> None:
        require_share("share", self.share)
        if self.rank is not None and self.rank < 1:
            raise InvalidRequest("unmask", f"`rank` must be at least 1, got {self.rank}")

    @property
    def needs(self) -> frozenset[str]:
        """The causal model."""
        return frozenset({AUX})

    def propose(self, view: StepView) -> Proposal:
        """The drafts before the first refused one, and the first draft in any case."""
        said = view.aux[AUX]
        refused = said.draft_confidence < view.params.share * said.confidence
        if self.rank is not None:
            refused |= self._likelier(view) >= view.params.rank
        order = view.eligible.cumsum(dim=1)
        stopped = (view.eligible & refused).cumsum(dim=1) > 0
        return Proposal(view.eligible & (~stopped | (order == 1)))

    def _likelier(self, view: StepView) -> Tensor:
        """`[R, W]`: the number of ids that the causal model finds likelier than the draft."""
        said = view.aux[AUX]
        own = said.logits.gather(1, view.token[said.scored][:, None])
        return (said.logits > own).sum(dim=1)[said.logit_row]
