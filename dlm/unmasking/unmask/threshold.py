"""Unmasking by confidence: every position that is sure enough."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Literal

import torch
from torch import Tensor

from dlm.core import Kind, Proposal, StepView, Unmasker
from dlm.errors import InvalidRequest
from dlm.unmasking.schedules import even_counts
from dlm.unmasking.scores import (
    ConfFrom,
    confidence_of,
    needs_of,
    opens_alone,
    require_conf_from,
    require_share,
    score_of,
    top,
)


@dataclass(frozen=True, slots=True)
class Threshold(Unmasker):
    """Commit every position with confidence >= `threshold` (Fast-dLLM, arXiv 2505.22618).

    At least the most confident position is committed. `conf_from="tempered"` reads the distribution
    that tokens are drawn from, as Fast-dLLM does on Dream. What else its code does there:
    `first_alone`, with its caches: the step that opens a block commits the block's first position
    and nothing else · `shares`, without: no step goes beyond an even share of the block's masks,
    one of this many; what is left of a share adds to the next.
    """

    tier = "T1"

    threshold: float = 0.9
    _: KW_ONLY
    conf_from: ConfFrom = "clean"
    first_alone: bool = False
    shares: int | None = None

    def __post_init__(self) -> None:
        require_share("threshold", self.threshold)
        require_conf_from(self.conf_from)
        if self.shares is not None and self.shares < 1:
            raise InvalidRequest("unmask", f"`shares` must be at least 1, got {self.shares}")

    @property
    def needs(self) -> frozenset[str]:
        """The distribution that tokens are drawn from, if it reads that."""
        return needs_of("confidence", self.conf_from)

    @property
    def one_block(self) -> bool:
        """True if it counts the steps of a block."""
        return self.first_alone or self.shares is not None

    def propose(self, view: StepView) -> Proposal:
        """All confident positions; the iteration manager adds the best one where there is none."""
        c = confidence_of(view, self.conf_from)
        sure = view.eligible & (c >= view.params.threshold)
        if self.conf_from == "tempered":  # the best one is another
            sure = sure | top(c, view.must_progress, 1)
        if self.shares is not None:
            sure = sure & top(c, view.eligible, self._within(view).clamp_min(1))
        return Proposal(opens_alone(view, sure) if self.first_alone else sure)

    def _within(self, view: StepView) -> Tensor:
        """`[R, 1]`: what the shares up to this step leave to it; after the last one, all."""
        step, masks = view.of_first_block(view.blocks.step, view.blocks.masks)
        open_now = view.eligible.sum(dim=1, keepdim=True)
        shares = view.params.shares
        size = torch.div(masks, shares, rounding_mode="floor")
        due = size * (step + 1) + torch.minimum(step + 1, masks - size * shares)
        return torch.where(step < shares, due - (masks - open_now), open_now)


@dataclass(frozen=True, slots=True)
class Factor(Unmasker):
    """Commit the n most confident positions, n as large as the n-th confidence stays at least
    `1 - factor / (n + 1)` (Fast-dLLM, arXiv 2505.22618).

    With `factor=1` parallel greedy decoding provably equals sequential greedy decoding (theorem 1).
    The most confident position is always committed. `last_passes`: the block's last open position
    is committed with all others, however unsure it is, as in Fast-dLLM's code.
    """

    tier = "T1"

    factor: float = 1.0
    _: KW_ONLY
    last_passes: bool = False

    def __post_init__(self) -> None:
        if not self.factor > 0:
            raise InvalidRequest("unmask", f"`factor` must be greater than 0, got {self.factor}")

    @property
    def tier_as_set(self) -> str:
        """T1 for what Fast-dLLM's code does; the paper's rule has a twin."""
        return "T1" if self.last_passes else "T2"

    def propose(self, view: StepView) -> Proposal:
        """The ranks that pass, row by row."""
        count = self._passing(view)
        if self.last_passes:
            count, open_now = count.clamp_min(1), view.eligible.sum(dim=1, keepdim=True)
            count = torch.where(count == open_now - 1, open_now, count)
        return Proposal(top(view.confidence, view.eligible, count))

    def _passing(self, view: StepView) -> Tensor:
        """`[R, 1]`: how many ranks pass; after one that fails none does, as what it takes grows."""
        ranked = (
            view.confidence.masked_fill(~view.eligible, -torch.inf)
            .sort(dim=1, descending=True)
            .values
        )
        rank = torch.arange(1, ranked.shape[1] + 1, device=ranked.device)
        passes = ranked >= 1 - view.params.factor / (rank + 1)
        count: Tensor = passes.sum(dim=1, keepdim=True)
        return count


@dataclass(frozen=True, slots=True)
class Dynamic(Unmasker):
    """Block-diffusion rule: all positions above `threshold` if they meet the quota, else the
    quota's best ones (SDAR, arXiv 2510.06303).

    SDAR's low_confidence_dynamic and LLaDA2's rule (strict `>`): the quota shares the block's
    length evenly over `block_steps` steps, remainder first; None is one a step. `threshold=1.0` is
    the static rule, and with `order="left"` the sequential one, whose quota is the leftmost
    positions. `conf_from="tempered"` reads the distribution that tokens are drawn from, as SDAR
    does.
    """

    tier = "T1"

    threshold: float = 0.9
    block_steps: int | None = None
    conf_from: ConfFrom = "clean"
    _: KW_ONLY
    order: Literal["confidence", "left"] = "confidence"

    def __post_init__(self) -> None:
        require_share("threshold", self.threshold)
        require_conf_from(self.conf_from)
        if self.block_steps is not None and self.block_steps < 1:
            raise InvalidRequest(
                "unmask", f"`block_steps` must be at least 1, got {self.block_steps}"
            )
        if self.order not in ("confidence", "left"):
            raise InvalidRequest(
                "unmask", f"`order` must be 'confidence' or 'left', got {self.order!r}"
            )

    @property
    def needs(self) -> frozenset[str]:
        """The distribution that tokens are drawn from, if it reads that."""
        return needs_of("confidence", self.conf_from)

    @property
    def one_block(self) -> bool:
        """True if it counts down the clock of a block."""
        return self.block_steps is not None

    def propose(self, view: StepView) -> Proposal:
        """Confident positions or the quota, row by row."""
        c = confidence_of(view, self.conf_from)
        sure = view.eligible & (c > view.params.threshold)
        quota = self._quota(view)
        enough = sure.sum(dim=1, keepdim=True) >= quota
        score = score_of("left", view) if self.order == "left" else c
        return Proposal(torch.where(enough, sure, top(score, view.eligible, quota)))

    def _quota(self, view: StepView) -> Tensor | Literal[1]:
        """An even share of the block's length, `[R, 1]`, or one."""
        if self.block_steps is None:
            return 1
        start, end, step = view.of_first_block(view.blocks.start, view.blocks.end, view.blocks.step)
        return even_counts(end - start, step, view.params.block_steps)


@dataclass(frozen=True, slots=True)
class RunningMean(Unmasker):
    """Commit what is more confident than the block's tokens were on average when they were
    committed (the adaptive acceleration of Saber, arXiv 2510.18165).

    At least the `quota` most confident positions; nothing else while the block has no token.
    """

    tier = "T2"

    quota: int = 2

    def __post_init__(self) -> None:
        if self.quota < 1:
            raise InvalidRequest("unmask", f"`quota` must be at least 1, got {self.quota}")

    def propose(self, view: StepView) -> Proposal:
        """Above the mean of its block, or the quota."""
        inside = (view.kind == Kind.COMMITTED) & (view.pos >= view.in_block(view.blocks.start))
        zero = torch.zeros_like(view.blocks.start, dtype=torch.float64)
        count = zero.scatter_add(1, view.block, inside.double())
        known = view.last.conf.masked_fill(~inside, 0.0).double()
        mean = zero.scatter_add(1, view.block, known) / count  # of none: NaN
        sure = view.eligible & (view.confidence > view.in_block(mean))
        return Proposal(sure | top(view.confidence, view.eligible, view.params.quota))


@dataclass(frozen=True, slots=True)
class CommitAll(Unmasker):
    """Commit all that is eligible; what stays is an editor's choice (RCR)."""

    tier = "T1"

    def propose(self, view: StepView) -> Proposal:
        """All of it."""
        return Proposal(view.eligible)
