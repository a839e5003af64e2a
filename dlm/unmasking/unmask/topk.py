"""Unmasking by quota: a number of positions a step, the best-scored first."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from dlm.core import ModelInfo, Proposal, StepView, Unmasker, is_one_of
from dlm.errors import InvalidRequest, unknown_name
from dlm.unmasking.schedules import (
    SCHEDULES,
    Schedule,
    require_schedule,
    scheduled_count,
    steps_of_block,
)
from dlm.unmasking.scores import (
    SCORES,
    ConfFrom,
    Score,
    gumbel_scores,
    needs_of,
    opens_alone,
    require_conf_from,
    score_of,
    top,
)


@dataclass(frozen=True, slots=True)
class TopK(Unmasker):
    """Commit a scheduled number of the best-scored positions in each step of a block.

    `score`: `confidence` (LLaDA's low-confidence remasking, arXiv 2502.09992), `random`, `margin`,
    `entropy` (Dream), `left` (left to right, SDAR's sequential order). `schedule`: `even` (LLaDA:
    the remainder goes to the first steps), MaskGIT's `linear`, `cosine`, `power` curves, or Dream's
    `eps` schedule, which may commit nothing in early steps. `steps` is for the whole answer, shared
    out to the blocks, each of which takes one at least; None is one token a step. `temperature`:
    draw the positions, without replacement and with probabilities `softmax(score / temperature)`,
    in place of the best ones (Dream's `alg_temp`). `demote` lists ids that are picked only when
    nothing else is left (`"eos"`: the model's end ids; LLaDA's `confidence_eos_eot_inf` as its
    paper has it); with `renormalise` all other confidences are shares of what those ids leave, as
    in its code. `conf_from="tempered"` scores the distribution that tokens are drawn from, as Dream
    does, not the clean one. `first_alone`: the step that opens a block commits the block's first
    position and nothing else (Fast-dLLM's caches on Dream).
    """

    tier = "T1"

    score: Score = "confidence"
    schedule: Schedule = "even"
    steps: int | None = None
    demote: tuple[int, ...] | str = ()
    power: float = 2.0
    eps: float = 1e-3
    temperature: float | None = None
    conf_from: ConfFrom = "clean"
    _: KW_ONLY
    renormalise: bool = False
    first_alone: bool = False

    clock = True

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise unknown_name("unmask: score", str(self.score), SCORES)
        if self.schedule not in SCHEDULES:
            raise unknown_name("unmask: schedule", str(self.schedule), SCHEDULES)
        require_conf_from(self.conf_from)
        require_schedule("unmask", self.steps, power=self.power, eps=self.eps)
        if isinstance(self.demote, str) and self.demote != "eos":
            raise InvalidRequest(
                "unmask", f"`demote` must be 'eos' or a tuple of ids, got {self.demote!r}"
            )
        if self.temperature is not None and not self.temperature > 0:
            raise InvalidRequest(
                "unmask", f"`temperature` must be greater than 0, got {self.temperature}"
            )

        if self.renormalise and not (
            self.demote and self.score == "confidence" and self.conf_from == "clean"
        ):
            raise InvalidRequest(
                "unmask", "`renormalise` takes ids to `demote`, and clean confidences for a score"
            )

    @property
    def tier_as_set(self) -> str:
        """T1 for what LLaDA's, MDPO's and Dream's references were recorded with."""
        recorded = {
            "even": ("confidence",),
            "cosine": ("confidence",),
            "eps": ("confidence", "entropy", "margin"),
        }
        plain = self.temperature is None and (self.conf_from == "clean" or self.schedule == "eps")
        ends = self.renormalise or not self.demote
        alone = not self.first_alone or (self.schedule, self.score) == ("eps", "entropy")
        known = self.score in recorded.get(self.schedule, ())
        return "T1" if plain and ends and alone and known else "T2"

    @property
    def needs(self) -> frozenset[str]:
        """The statistics that the score reads."""
        return needs_of(self.score, self.conf_from)

    @property
    def one_block(self) -> bool:
        """True if it counts down the clock of a block."""
        return self.steps is not None or self.schedule != "even" or self.first_alone

    def steps_for(self, masks: int, total: int) -> int | None:
        """Those of the schedule; with `first_alone` they are not known beforehand."""
        return None if self.first_alone else steps_of_block(self, masks, total)

    def bind(self, info: ModelInfo) -> Self:
        """Resolve `demote`.

        Raises `InvalidRequest` for ids that no answer can have, and for end ids that the model does
        not name.
        """
        if isinstance(self.demote, str) and not info.eos_ids:
            raise InvalidRequest(
                "unmask", "`demote` 'eos' needs end ids, and the model's config names none"
            )
        demote = info.eos_ids if isinstance(self.demote, str) else self.demote
        info.check_answer_ids("unmask", demote)
        return replace(self, demote=demote)

    def propose(self, view: StepView) -> Proposal:
        """The scheduled number of eligible positions, by score."""
        score = self._score(view)
        if self.temperature is not None:
            score = gumbel_scores(score, view.params.temperature, view)
        total = None if self.steps is None else view.params.steps
        count = scheduled_count(view, self.schedule, total, view.params)
        taken = self._taken(view, score, count)
        return Proposal(opens_alone(view, taken) if self.first_alone else taken)

    def _score(self, view: StepView) -> Tensor:
        """`[R, W]`: higher commits earlier."""
        if not self.renormalise:
            return score_of(self.score, view, self.conf_from)
        chosen = view.logits[view.logit_row, view.token]
        left = view.logits.index_fill(1, view.params.demote, -torch.inf).logsumexp(dim=1)
        share = (chosen - left[view.logit_row]).exp()
        return share.masked_fill(is_one_of(view.token, self._demoted), 0.0)

    def _taken(self, view: StepView, score: Tensor, count: Tensor | Literal[1]) -> Tensor:
        """`[R, W]`: the best ones, first of those that say no id which is demoted."""
        if not self.demote:
            return top(score, view.eligible, count)
        unwanted = is_one_of(view.token, self._demoted)
        first = top(score, view.eligible & ~unwanted, count)
        rest = count - first.sum(dim=1, keepdim=True)
        return first | top(score, view.eligible & unwanted, rest)

    @property
    def _demoted(self) -> tuple[int, ...]:
        """The ids, after `bind` has resolved them."""
        return () if isinstance(self.demote, str) else self.demote
