"""Tilts: how a reward bends the distributions by which an editor ranks and chooses tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from dlm.core import StepView
from dlm.errors import InvalidRequest
from dlm.rng import Stream, draw, uniforms
from dlm.unmasking.edit.rewards import (
    HardDraft,
    SoftDraft,
    called,
    check_answer,
    require_count,
    require_number,
    require_reward,
    wrong,
)


class Tilted(NamedTuple):
    """The outcome of a tilt in a step: for open positions a token and its score, for committed ones
    the score of the token that is there. A score is a logarithm of a probability, tilted.

    token: `[R, W]` ids
    score: `[R, W]` float64
    """

    token: Tensor
    score: Tensor


class Tilt:
    """A tilt of any sort; those of this module are frozen dataclasses with a `reward`.

    needs: statistics that it reads, as those of a part
    """

    __slots__ = ()

    needs: frozenset[str] = frozenset()

    @abstractmethod
    def __call__(self, view: StepView, filled: Tensor) -> Tilted:
        """Score the committed positions `filled [R, W]`, all with logits, and the eligible ones."""

    def check_vocabulary(self, size: int) -> None:
        """Raise `InvalidRequest` where a vocabulary of this size is too small."""


def untilted(view: StepView, filled: Tensor) -> Tilted:
    """The drawn tokens, and the clean log-probabilities."""
    now = view.confidence.double()
    if view.stats.prob_current is not None:
        now = torch.where(filled, view.stats.prob_current.double(), now)
    return Tilted(view.token, now.log())


CURRENT: Final = frozenset({"prob_current"})


@dataclass(frozen=True, slots=True)
class CandidateReward(Tilt):
    """A tilt without gradients: `reward(draft: HardDraft) -> [R, W, K]`, a bonus each candidate.

    A candidate's score is `log p + beta * bonus`. An open position takes the best of `candidates`
    ids, its drawn token and the most likely others, or with a `temperature` a draw from
    `softmax(score / temperature)`. With one candidate the order alone is tilted.
    """

    reward: Callable[[HardDraft], Tensor]
    beta: float = 1.0
    candidates: int = 1
    temperature: float = 0.0

    needs = CURRENT

    def __post_init__(self) -> None:
        require_reward(self.reward)
        require_number("beta", self.beta)
        require_count("candidates", self.candidates)
        require_number("temperature", self.temperature, least=0)

    def check_vocabulary(self, size: int) -> None:
        """The candidates are different ids, none of them MASK."""
        if self.candidates > size - 1:
            raise InvalidRequest(
                "edit", f"`candidates` must be at most {size - 1}, got {self.candidates}"
            )

    def __call__(self, view: StepView, filled: Tensor) -> Tilted:
        """Weigh the candidates of all positions in one call of the reward."""
        token = torch.where(filled, view.ids, view.token)
        weighed = filled | view.eligible
        ids, score = self._candidates(view, filled, token)
        draft = HardDraft(
            _drafted(view, weighed, token),
            view.row.prompt,
            view.row.length,
            _inside(view),
            weighed,
            ids,
        )
        bonus = _bonus(self.reward, draft)
        tilted = score + self.beta * bonus.masked_fill(~weighed[..., None], 0.0).double()
        choice = self._choice(view, tilted).masked_fill(filled, 0)[..., None]
        return Tilted(ids.gather(2, choice)[..., 0], tilted.gather(2, choice)[..., 0])

    def _candidates(self, view: StepView, filled: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """`[R, W, K]` each: ids and log-probabilities; the first is `token`, on the canvas or
        drawn.
        """
        own = untilted(view, filled).score
        if self.candidates == 1:
            return token[..., None], own[..., None]
        rows = view.log_probs().scatter_(1, token.take(view.window.slot)[:, None], -torch.inf)
        best = rows.topk(self.candidates - 1, dim=1)
        ids, scores = best.indices[view.logit_row], best.values[view.logit_row]
        return torch.cat((token[..., None], ids), 2), torch.cat((own[..., None], scores), 2)

    def _choice(self, view: StepView, score: Tensor) -> Tensor:
        """`[R, W]`: the candidate that an open position takes."""
        if self.temperature == 0:
            return score.argmax(dim=2)
        return _draws(view, score / self.temperature)


@dataclass(frozen=True, slots=True)
class GradientReward(Tilt):
    """A tilt by gradients: `reward(draft: SoftDraft) -> [R]` is differentiable in `draft.probs`.

    `steps` times a step's logits phi move by `rate` times the gradient of the reward at
    softmax(phi) (anchored posterior sampling, arXiv 2510.02291). An open position takes the largest
    of them, or with a `temperature` a draw from `softmax(phi / temperature)`; the score of a token
    is its probability under phi. `straight_through`: the reward sees whole tokens, the most likely
    ones and those that stand there, while gradients pass as if it saw the expectation. `natural`:
    the logits move by the gradient of the probabilities themselves (exponentiated gradient), which
    does not vanish where the model is sure, right or wrong. Memory: five tensors of the size of the
    step's logits, beside what the reward holds.
    """

    reward: Callable[[SoftDraft], Tensor]
    steps: int = 8
    rate: float = 1.0
    temperature: float = 0.0
    straight_through: bool = True
    natural: bool = False

    def __post_init__(self) -> None:
        require_reward(self.reward)
        require_count("steps", self.steps)
        require_number("rate", self.rate)
        require_number("temperature", self.temperature, least=0)

    def __call__(self, view: StepView, filled: Tensor) -> Tilted:
        """Climb from the step's logits; what gradients need is no inference tensor."""
        with torch.inference_mode(False), torch.enable_grad():
            phi = _Climb(view, filled, straight_through=self.straight_through)
            for _ in range(self.steps):
                phi.move(self.reward, self.rate, natural=self.natural)
        logp = torch.log_softmax(phi.logits, dim=1).double()
        inner = phi.without_mask(phi.logits)
        best = inner.argmax(dim=1)[view.logit_row]
        if self.temperature > 0:
            best = _draws(view, (inner / self.temperature)[view.logit_row])
        token = torch.where(filled, view.ids, best)
        score = logp[view.logit_row, token]
        return Tilted(token, torch.where(view.scored, score, view.confidence.double().log()))


class _Climb:
    """Logits `[N, V]` that climb a reward, N the positions with logits.

    soft: those that the reward may bend, `[N]`: eligible or filled
    fixed: those whose token stands, `[N]`
    """

    def __init__(self, view: StepView, filled: Tensor, *, straight_through: bool) -> None:
        slot = view.window.slot.clone()
        self.mask_id, self.straight_through = view.mask_id, straight_through
        self.logits, self.ids = view.logits.clone(), view.ids.clone().take(slot)
        self.soft = (view.eligible | filled).clone().take(slot)
        self.fixed = self.soft & ~view.eligible.clone().take(slot)
        self.row = torch.div(slot, view.pos.shape[1], rounding_mode="floor")
        self.pos = view.pos.clone().take(slot)
        self.canvas = view.last.rows.ids[:, :-1].clone()
        self.prompt, self.length = view.row.prompt.clone(), view.row.length.clone()

    def without_mask(self, logits: Tensor) -> Tensor:
        """The logits with MASK struck out."""
        if self.mask_id is None:
            return logits
        column = torch.arange(logits.shape[1], device=logits.device) == self.mask_id
        return logits.masked_fill(column, -torch.inf)

    def move(
        self, reward: Callable[[SoftDraft], Tensor], rate: float, *, natural: bool = False
    ) -> None:
        """One step along the gradient of the reward."""
        phi = self.logits.requires_grad_()
        inner = self.without_mask(phi)
        probs = torch.softmax(inner, dim=1)
        best = inner.detach().argmax(dim=1)
        token = torch.where(self.soft & ~self.fixed, best, self.ids)
        value = called(reward, self._draft(probs, token))
        check_answer(reward, value, self.prompt.shape, "one number a row")
        if not value.requires_grad:
            raise wrong(reward, "must depend on `draft.probs`, got numbers without a gradient")
        (gradient,) = torch.autograd.grad(value.sum(), probs if natural else phi)
        if natural:
            pulls = (probs * gradient).sum(dim=1, keepdim=True)
            gradient = (gradient - pulls).masked_fill(inner.isneginf(), 0.0)
        if not bool(gradient.isfinite().all()):
            raise wrong(reward, "must have finite gradients, got some that are not")
        self.logits = (phi + rate * gradient).detach()

    def _draft(self, probs: Tensor, token: Tensor) -> SoftDraft:
        """The draft at softmax `probs [N, V]`, whose most likely or standing ids are `token`."""
        whole = torch.zeros_like(probs).scatter_(1, token[:, None], 1.0)
        through = whole + (probs - probs.detach())
        if not self.straight_through:
            through = torch.where(self.fixed[:, None], through, probs)
        seen = torch.where(self.soft[:, None], through, whole)
        canvas = self.canvas.index_put((self.row, self.pos), token)
        return SoftDraft(canvas, self.prompt, self.length, self.row, self.pos, seen)


def _drafted(view: StepView, weighed: Tensor, token: Tensor) -> Tensor:
    """`[R, L]`: the canvases with `token [R, W]` where it is weighed, without the spare column."""
    ids = torch.where(weighed, token, view.ids)
    return view.last.rows.ids.scatter(1, view.pos, ids)[:, :-1]


def _inside(view: StepView) -> Tensor:
    """`[R, W]`: the window's positions, 0 in columns that show none."""
    return view.pos.masked_fill(~view.valid, 0)


def _draws(view: StepView, score: Tensor) -> Tensor:
    """`[R, W]`: a draw from the softmax of `score [R, W, n]` at each position."""
    u = uniforms(view.row.seed, view.row.path, view.pos, view.row.step, Stream.TILT)
    probs = torch.softmax(score, dim=2).flatten(0, 1)
    return draw(probs, u.flatten()).view_as(view.pos)


def _bonus(reward: Callable[[HardDraft], Tensor], draft: HardDraft) -> Tensor:
    """The bonus of each candidate, checked."""
    bonus: Tensor = called(reward, draft)
    check_answer(reward, bonus, draft.candidates.shape, "a number for each candidate")
    if not bool((bonus.isfinite().all(dim=2) | ~draft.weighed).all()):
        raise wrong(reward, "must give finite bonuses, got some that are not")
    return bonus
