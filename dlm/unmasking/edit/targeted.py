"""Targeted remasking (T2M): doubtful tokens of the block are opened again, not overwritten."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import torch
from torch import Tensor

from dlm.core import Editor, Proposal, ScratchSpec, StepView, Unmasker
from dlm.errors import InvalidRequest, unknown_name
from dlm.unmasking.edit.revising import filled_steps, refuse_schedule, revisable
from dlm.unmasking.scores import top

Detect = Literal["low_prob", "other_sure", "drop"]
THRESHOLDS: Final = MappingProxyType({"low_prob": 0.3, "other_sure": 0.9, "drop": 0.3})
"""Thresholds of the detectors: that of the published main result, and the authors' defaults."""


@dataclass(frozen=True, slots=True)
class T2M(Editor):
    """Open the most doubtful tokens of the block again (T2M remasking of LLaDA2.1,
    arXiv 2604.18738, in place of its overwriting: a model tends to repeat a token that it sees).

    By `detect` a token is doubtful: `low_prob`, whose probability is below `threshold`;
    `other_sure`, in place of which the model would say another with more than `threshold`; `drop`,
    that has lost more than `threshold` of probability since the last step. The threshold is by
    default 0.3, 0.9 and 0.3. A step opens at most a `share` of the block's tokens, but one at
    least where one is doubtful, and each position at most `most` times. A filled block is looked
    at once more after each step that opens something, at most `post_steps` times in all.
    """

    tier = "T2"

    detect: Detect = "low_prob"
    threshold: float | None = None
    most: int = 1
    share: float = 0.25
    post_steps: int = 16

    scope = "block"

    def __post_init__(self) -> None:
        if self.detect not in THRESHOLDS:
            raise unknown_name("edit: detect", str(self.detect), THRESHOLDS)
        if self.threshold is None:
            object.__setattr__(self, "threshold", THRESHOLDS[self.detect])
        for name in ("threshold", "share"):
            if not 0 <= getattr(self, name) <= 1:
                value = getattr(self, name)
                raise InvalidRequest("edit", f"`{name}` must be in [0, 1], got {value}")
        for name, least in (("most", 1), ("post_steps", 0)):
            if getattr(self, name) < least:
                value = getattr(self, name)
                raise InvalidRequest("edit", f"`{name}` must be at least {least}, got {value}")

    @property
    def needs(self) -> frozenset[str]:
        """The probability of the tokens that are there, and the most likely ones."""
        return frozenset({"prob_current", "argmax"})

    @property
    def scratch(self) -> tuple[ScratchSpec, ...]:
        """Steps of a filled block, and the probability of each token in the last step."""
        return (
            ScratchSpec("t2m.filled", "row", torch.long),
            ScratchSpec("t2m.prob", "token", torch.float32, fill=torch.nan),
        )

    def refuses(self, unmask: Unmasker) -> str | None:
        """A schedule has not counted the positions that are reopened."""
        return refuse_schedule(unmask)

    def edit(self, view: StepView, proposal: Proposal) -> Proposal:
        """Reopen the most doubtful tokens, and hold a filled block that may still change."""
        now, before = view.stats.prob_current, view.scratch["t2m.prob"]
        assert now is not None
        inside = revisable(view)
        badness = self._badness(view, now, before.gather(1, view.pos))
        suspect = inside & (badness > 0) & (view.last.edits < view.params.most)
        count = (inside.sum(dim=1, keepdim=True) * view.params.share).long().clamp_min(1)
        filled = filled_steps(view, view.scratch["t2m.filled"])
        remask = top(badness, suspect, count) & (filled <= view.params.post_steps[:, 0])[:, None]
        seen = torch.where(proposal.commit, view.confidence, torch.where(inside, now, torch.nan))
        return proposal.revised(
            remask=remask,
            hold=view.eligible.any(dim=1) & (filled < view.params.post_steps[:, 0]),
            scratch={"t2m.filled": filled, "t2m.prob": before.scatter(1, view.pos, seen)},
        )

    def _badness(self, view: StepView, now: Tensor, before: Tensor) -> Tensor:
        """`[R, W]`: above 0 where a token is doubtful, the more the worse."""
        threshold: Tensor = view.params.threshold
        if self.detect == "low_prob":
            return threshold - now
        if self.detect == "drop":
            return before - now - threshold  # NaN, of a token that no step has read, is not above 0
        assert view.stats.argmax is not None
        other = view.with_token(view.stats.argmax)
        return torch.where(other.token == view.ids, -1.0, other.confidence - threshold)
