"""Unmasking what is confident and has stopped changing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from dlm.core import MIN_LOGIT, Entries, ModelInfo, Proposal, ScratchSpec, StepView, Unmasker, bound
from dlm.errors import InvalidRequest
from dlm.unmasking.scores import require_share


@dataclass(frozen=True, slots=True)
class KLASS(Unmasker):
    """Commit every position that is confident and whose distribution has been stable
    (arXiv 2511.05664).

    Stable: in each of the last `history` steps the Kullback-Leibler divergence of the distribution
    from that of the step before was below `kl` (nats). Confident: above `threshold`. Where nothing
    is both, the most confident position is committed. It remembers the last distribution of every
    position, 4 bytes for each id of the vocabulary, and forgets none when a block opens.
    """

    tier = "T2"

    threshold: float = 0.9
    kl: float = 0.01
    history: int = 2
    vocabulary: int = bound(1)

    def __post_init__(self) -> None:
        require_share("threshold", self.threshold)
        if not self.kl >= 0:
            raise InvalidRequest("unmask", f"`kl` must be at least 0, got {self.kl}")
        if self.history < 1:
            raise InvalidRequest("unmask", f"`history` must be at least 1, got {self.history}")

    @property
    def scratch(self) -> tuple[ScratchSpec, ...]:
        """The last log-probabilities (NaN: none yet), and for how many steps they were stable."""
        last = ScratchSpec(
            "klass_last", "token", torch.float32, fill=torch.nan, width=self.vocabulary
        )
        return last, ScratchSpec("klass_calm", "token", torch.long)

    def bind(self, info: ModelInfo) -> Self:
        """Take the size of the vocabulary."""
        return replace(self, vocabulary=info.vocab_size)

    def propose(self, view: StepView) -> Proposal:
        """The sure and calm positions; where there is none, the manager adds the best one."""
        last, calm = view.scratch["klass_last"], view.scratch["klass_calm"]
        window, places = view.window, last.shape[1]
        flat = window.row[: len(window.slot)] * places + view.pos.take(window.slot)  # [N]
        before = last.flatten(0, 1).index_select(0, flat)
        logp = view.log_probs().clamp_min_(MIN_LOGIT)
        moved = divergence(logp, before).take(view.logit_row)
        steps = torch.where(moved < view.params.kl, calm.gather(1, view.pos) + 1, 0)
        steps = torch.where(view.scored, steps, 0)
        sure = (steps >= view.params.history) & (view.confidence > view.params.threshold)
        calm = calm.scatter(1, view.pos, steps)
        return Proposal(
            view.eligible & sure, scratch={"klass_last": Entries(flat, logp), "klass_calm": calm}
        )


def divergence(logp: Tensor, before: Tensor) -> Tensor:
    """`[N]`: KL of each distribution `logp [N, V]` from `before`; both are finite or NaN."""
    found: Tensor = torch.linalg.vecdot(logp.exp(), logp - before)
    return found
