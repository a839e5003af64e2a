"""Unmasking by quota: so many positions a step, the best-scored first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch

from dlm.core import ModelInfo, Proposal, StepView, is_one_of
from dlm.errors import InvalidRequest, unknown_name
from dlm.unmasking.selectors import (
    SCHEDULES,
    SCORES,
    Schedule,
    Score,
    needs_of,
    scheduled_count,
    score_of,
    top,
    warmed,
)


@dataclass(frozen=True, slots=True)
class TopK:
    """Commit a scheduled number of the best-scored positions in each step of a block.

    `score`: `confidence` (LLaDA's low-confidence remasking, arXiv 2502.09992), `random`, `margin`,
    `entropy` (Dream), `left` (left to right, SDAR's sequential order). `schedule`: `even` (LLaDA:
    the remainder goes to the first steps), MaskGIT's `linear`, `cosine`, `power` curves, or Dream's
    `eps` schedule, which may commit nothing in early steps. `steps` is for the whole answer, shared
    out to the blocks; None is one token a step. `temperature`: draw the positions, without
    replacement and with probabilities `softmax(score / temperature)`, in place of the best ones
    (Dream's `alg_temp`). `demote` lists ids that are picked only
    when nothing else is left (`"eos"`: the model's end ids; LLaDA's `confidence_eos_eot_inf` in its
    intended meaning).
    """

    tier = "T1"

    score: Score = "confidence"
    schedule: Schedule = "even"
    steps: int | None = None
    demote: tuple[int, ...] | str = ()
    power: float = 2.0
    eps: float = 1e-3
    temperature: float | None = None

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise unknown_name("unmask", str(self.score), SCORES)
        if self.schedule not in SCHEDULES:
            raise unknown_name("unmask", str(self.schedule), SCHEDULES)
        if self.steps is not None and self.steps < 1:
            raise InvalidRequest("unmask", f"`steps` must be at least 1, got {self.steps}")
        if isinstance(self.demote, str) and self.demote != "eos":
            raise InvalidRequest(
                "unmask", f"`demote` must be 'eos' or a tuple of ids, got {self.demote!r}"
            )
        if not self.power > 0:
            raise InvalidRequest("unmask", f"`power` must be greater than 0, got {self.power}")
        if not 0 < self.eps < 1:
            raise InvalidRequest("unmask", f"`eps` must be in (0, 1), got {self.eps}")
        if self.temperature is not None and not self.temperature > 0:
            raise InvalidRequest(
                "unmask", f"`temperature` must be greater than 0, got {self.temperature}"
            )

    clock = True

    @property
    def needs(self) -> frozenset[str]:
        """What the score reads."""
        return needs_of(self.score)

    def bind(self, info: ModelInfo) -> Self:
        """Resolve `demote`. Raises `InvalidRequest` for ids outside the vocabulary."""
        if isinstance(self.demote, str):
            return replace(self, demote=info.eos_ids)
        info.check_ids("unmask", self.demote)
        return self

    def propose(self, view: StepView) -> Proposal:
        """The scheduled number of eligible positions, by score."""
        score = score_of(self.score, view)
        if self.temperature is not None:
            score = warmed(score, view.knob.temperature, view)
        if isinstance(self.demote, tuple) and self.demote:
            unwanted = is_one_of(view.token, self.demote)
            score = torch.where(unwanted, score.double() - _DEMOTION, score)
        total = None if self.steps is None else view.knob.steps
        count = scheduled_count(view, self.schedule, total, view.knob)
        return Proposal(top(score, view.eligible, count))


_DEMOTION = 1e4
"""More than the range of any score, so that demoted positions rank below all others but keep
their order.
"""
