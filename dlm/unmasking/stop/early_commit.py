"""Stop rules that take every open token at once, when the model has made up its mind."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlm.core import EarlyCommit, Fill, ScratchSpec, StepView
from dlm.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Prophet(EarlyCommit):
    """Early answer commit: fill all open positions once the logit gap between the best and the
    second token, averaged over the answer, is large enough (Prophet, arXiv 2508.19982).

    `early`, `middle`, `late`: the gap that is enough while less than a third, less than two thirds
    and more of the block is filled. `start`, `count`: the span of the answer after the prompt;
    without a count all positions from there on that are open count. What is filled is what the step
    shows: of several blocks, or with a cache that computes a part of the canvas, one after another.
    """

    tier = "T2"

    early: float = 7.5
    middle: float = 5.0
    late: float = 2.5
    start: int = 0
    count: int | None = None

    needs = frozenset({"logit_margin"})

    def __post_init__(self) -> None:
        if not self.early >= self.middle >= self.late >= 0:
            raise InvalidRequest(
                "stop",
                "`early`, `middle`, `late` must be early >= middle >= late >= 0, "
                f"got {self.early}, {self.middle}, {self.late}",
            )
        if self.start < 0 or (self.count is not None and self.count < 1):
            raise InvalidRequest(
                "stop",
                "`start` must be at least 0 and `count` at least 1, "
                f"got {self.start} and {self.count}",
            )

    def fill(self, view: StepView) -> Fill:
        """Rows whose answer has a mean gap as large as the progress asks."""
        still_open = view.open_inside & view.scored
        offset = view.pos - view.row.prompt[:, None] - view.params.start
        answer = view.scored & (offset >= 0)
        answer &= still_open if self.count is None else offset < view.params.count
        assert view.stats.logit_margin is not None
        mean = _mean(view.stats.logit_margin, answer)
        masks = torch.where(view.window.live, view.blocks.masks, 0).sum(dim=1)
        done = 1 - still_open.sum(dim=1) / masks.clamp_min(1)
        params = view.params
        wanted = torch.where(done[:, None] < 2 / 3, params.middle, params.late)
        wanted = torch.where(done[:, None] < 1 / 3, params.early, wanted)[:, 0]
        return Fill(answer.any(dim=1) & (mean >= wanted))


@dataclass(frozen=True, slots=True)
class Stable(EarlyCommit):
    """Fill all open positions once their most likely tokens have not changed for `patience` steps
    and their mean entropy is at most `entropy` nats (the stop of DiffusionGemma's sampler).
    """

    tier = "T2"

    entropy: float = 0.005
    patience: int = 1

    needs = frozenset({"entropy", "argmax"})
    scratch = (
        ScratchSpec("stable_token", "token", torch.long, fill=-1),
        ScratchSpec("stable_steps", "row", torch.long),
    )

    def __post_init__(self) -> None:
        if not self.entropy >= 0:
            raise InvalidRequest("stop", f"`entropy` must be at least 0, got {self.entropy}")
        if self.patience < 1:
            raise InvalidRequest("stop", f"`patience` must be at least 1, got {self.patience}")

    def fill(self, view: StepView) -> Fill:
        """Rows whose open positions have predicted the same for long enough, and surely."""
        assert view.stats.entropy is not None
        assert view.stats.argmax is not None
        still_open = view.open_inside & view.scored
        before = view.scratch["stable_token"]
        same = ((before.gather(1, view.pos) == view.stats.argmax) | ~still_open).all(dim=1)
        steps = torch.where(same, view.scratch["stable_steps"] + 1, 0)
        sure = _mean(view.stats.entropy, still_open) <= view.params.entropy[:, 0]
        token = torch.where(still_open, view.stats.argmax, -1)
        kept = {"stable_token": before.scatter(1, view.pos, token), "stable_steps": steps}
        return Fill(sure & (steps >= view.params.patience[:, 0]), kept)


def _mean(values: Tensor, among: Tensor) -> Tensor:
    """`[R]`: the mean of `values [R, W]` over `among`; 0 where that is empty."""
    total = values.masked_fill(~among, 0.0).sum(dim=1)
    return total / among.sum(dim=1).clamp_min(1)
