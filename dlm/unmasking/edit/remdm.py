"""Reverse steps of masked diffusion that may also reopen what they have committed: ReMDM and Psi.

All of them are one step from the noise level t = 1 - alpha_t to s = 1 - alpha_s with a probability
sigma of reopening. An open position falls with probability `1 - s/t + sigma (1 - t) / t`, which is
`(alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t)`: the share of ancestral sampling, and what makes
up for the positions that are reopened, so that a position is open with probability s after it.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor

from dlm.core import Editor, Kind, ModelInfo, Proposal, StepView, Unmasker
from dlm.errors import InvalidRequest, unknown_name
from dlm.rng import Stream, uniforms
from dlm.unmasking.schedules import clock_of, require_schedule, time_of
from dlm.unmasking.unmask.threshold import CommitAll

Sigma = Literal["cap", "rescale", "conf", "loop"]
SIGMAS: tuple[Sigma, ...] = get_args(Sigma)


def falls(t: Tensor, s: Tensor, sigma: Tensor) -> Tensor:
    """The probability that an open position falls, from noise level `t` to `s <= t`."""
    return 1 - s / t + sigma * (1 - t) / t


def largest_sigma(t: Tensor, s: Tensor) -> Tensor:
    """The largest probability of reopening that falling can make up for: `(1 - alpha_s) / alpha_t`,
    at most 1 (ReMDM, eq. 5).
    """
    return (s / (1 - t)).clamp_max(1.0)  # at t = 1 nothing is committed, and 1 / 0 is cut


def sigma_of_kappa(s: Tensor, kappa: Tensor | float) -> Tensor:
    """The probability of reopening of a Psi step to noise level `s`.

    `kappa` times the posterior and `1 - kappa` times the forward process: the latter alone reopens.
    """
    return (1 - kappa) * s


class Step(NamedTuple):
    """The times of a step; all `[R, 1]`.

    now, then: the time at its start and at its end, from 1 down to `eps`
    last: it is the last one
    """

    now: Tensor
    then: Tensor
    last: Tensor


class Reverse(Editor):
    """A reverse step of masked diffusion: draws which proposals stay and which tokens reopen.

    Used with `unmask="everything"`, of whose commits it lets none stay but those that fall. The
    last step commits all that is open and reopens nothing. A block that is full before may still
    be reopened, and stays open for it.
    """

    __slots__ = ()

    scope = "block"
    clock = True
    one_block = True
    eps: float = 1e-3

    @abstractmethod
    def until(self, params: Any) -> Tensor:
        """`[R, 1]`: the time down to which a step may reopen a token; 1 if none ever does."""

    @abstractmethod
    def levels(self, step: Step, params: Any) -> tuple[Tensor, Tensor]:
        """The noise levels t and s of a step, `[R, 1]` each."""

    @abstractmethod
    def sigma_at(self, view: StepView, step: Step, t: Tensor, s: Tensor, filled: Tensor) -> Tensor:
        """The probability of reopening, `[R, 1]` or `[R, W]`, of what is `filled [R, W]`."""

    def bind(self, info: ModelInfo) -> Self:
        """Refuse models without a mask."""
        if info.mask_id is None:
            raise InvalidRequest(
                "edit", f"{type(self).__name__} samples masked diffusion, and the model has no mask"
            )
        return self

    def refuses(self, unmask: Unmasker) -> str | None:
        """It draws by itself when a position falls."""
        if isinstance(unmask, CommitAll):
            return None
        name = type(self).__name__
        return f"{name} draws by itself which open positions fall: use 'everything'"

    def edit(self, view: StepView, proposal: Proposal) -> Proposal:
        """One uniform for each position: an open one falls below its share, a committed one
        reopens below sigma.
        """
        count, steps, _ = clock_of(view, None if self.steps is None else view.params.steps)
        now, then = (time_of(n, steps, view.params.eps) for n in (count, count + 1))
        step = Step(now, then, count >= steps - 1)
        filled = (view.kind == Kind.COMMITTED) & view.window.inside
        filled &= view.pos >= view.in_block(view.blocks.start)
        t, s = self.levels(step, view.params)
        sigma = self.sigma_at(view, step, t, s, filled).masked_fill(step.last, 0.0)
        share = falls(t, s, sigma).masked_fill(step.last, 1.0)
        row = view.row
        u = uniforms(row.seed, row.path, view.pos, row.step, Stream.ORDER)
        reopened = filled & (u < sigma)
        again = (count + 1 < steps - 1) & (then > self.until(view.params))
        fallen = proposal._replace(commit=proposal.commit & (u < share))
        return fallen.revised(remask=reopened, hold=again[:, 0])


@dataclass(frozen=True, slots=True)
class ReMDM(Reverse):
    """Remasking diffusion (ReMDM, arXiv 2503.00307): in each step of ancestral sampling a committed
    token reopens with probability sigma, and open positions fall the more often.

    `sigma`: "cap" is `eta`, at most the largest one that can be made up for; "rescale" is `eta`
    times that; "conf" shares the latter out to the block's tokens by softmax(-confidence at their
    commit); "loop" falls to the level `on_level` of committed positions until the time `t_on`,
    reopens `eta` of them in each step and fills as many until `t_off`, and then fills the rest.
    Published for 1024 steps: "cap" 0.008, "rescale" 0.015, "loop" 0.02, "conf" 1; fewer steps need
    more.
    Times fall from 1 to `eps` over the `steps` of the answer. With `eta=0` it is `ancestral`.
    """

    tier = "T2"

    sigma: Sigma = "cap"
    eta: float = 0.1
    steps: int | None = None
    t_on: float = 0.55
    t_off: float = 0.05
    on_level: float = 0.9
    eps: float = 1e-3

    def __post_init__(self) -> None:
        if self.sigma not in SIGMAS:
            raise unknown_name("edit: sigma", str(self.sigma), SIGMAS)
        require_schedule("edit", self.steps, eps=self.eps)
        if not 0 <= self.eta <= 1:
            raise InvalidRequest("edit", f"`eta` must be in [0, 1], got {self.eta}")
        if not 0 < self.on_level < 1:
            raise InvalidRequest("edit", f"`on_level` must be in (0, 1), got {self.on_level}")
        if not self.eps <= self.t_off < self.t_on < 1:
            raise InvalidRequest(
                "edit",
                "`t_on` and `t_off` must be eps <= t_off < t_on < 1, "
                f"got t_on {self.t_on}, t_off {self.t_off} and eps {self.eps}",
            )
        most = (1 - self.on_level) / self.on_level
        if self.sigma == "loop" and self.eta > most:
            raise InvalidRequest(
                "edit",
                f"`eta` of the loop must be at most (1 - on_level) / on_level, {most:.4g}, "
                f"so that as many fall as reopen, got {self.eta}",
            )

    @property
    def holds(self) -> bool:
        """True if it ever reopens anything."""
        return self.eta > 0

    def until(self, params: Any) -> Tensor:
        """The loop's end; else that of the schedule."""
        end: Tensor = params.t_off if self.sigma == "loop" else torch.zeros_like(params.eta)
        return end.masked_fill(params.eta == 0, 1.0)

    def levels(self, step: Step, params: Any) -> tuple[Tensor, Tensor]:
        """The times themselves; in a loop they stand still at its level."""
        if self.sigma != "loop":
            return step.now, step.then
        now, then = (_loop_level(time, params) for time in (step.now, step.then))
        return now, then

    def sigma_at(self, view: StepView, step: Step, t: Tensor, s: Tensor, filled: Tensor) -> Tensor:
        """By its name; never above the largest one."""
        eta: Tensor = view.params.eta
        most = largest_sigma(t, s)
        if self.sigma == "rescale":
            return most * eta
        if self.sigma == "conf":
            doubt = -view.last.conf.double().nan_to_num(0.0)
            share = doubt.masked_fill(~filled, -torch.inf).softmax(dim=1)
            return most * eta * share.nan_to_num(0.0)  # of no token: NaN
        sigma = torch.minimum(eta.expand_as(most), most)
        if self.sigma == "loop":
            inside = (step.now <= view.params.t_on) & (step.now > view.params.t_off)
            sigma = sigma * inside
        return sigma


def _loop_level(time: Tensor, params: Any) -> Tensor:
    """The noise level of the loop: three straight lines over time, the middle one flat."""
    level, t_on, t_off = params.on_level, params.t_on, params.t_off
    before = 1 - level * (1 - time) / (1 - t_on)
    after = (1 - level) * time / t_off
    return torch.where(time > t_on, before, torch.where(time > t_off, 1 - level, after))


@dataclass(frozen=True, slots=True)
class Psi(Reverse):
    """Psi-sampler (Duo, chapter II): a step draws from `kappa` times the posterior and
    `1 - kappa` times the forward process that noises the prediction anew.

    1 is ancestral sampling; below it, committed tokens reopen with probability
    `(1 - kappa) (1 - alpha_s)`; 0 is a predictor-corrector step. `kappa` holds in the `middle`
    share of the time, `kappa_high` in the `high` share before it, `kappa_low` after it. For masked
    diffusion `kappa = 1 - sigma / (1 - alpha_s)` is `remdm`. Times fall from 1 to `eps` over the
    `steps` of the answer.
    """

    tier = "T2"

    kappa: float = 0.9
    steps: int | None = None
    high: float = 0.2
    middle: float = 0.6
    kappa_high: float = 1.0
    kappa_low: float = 1.0
    eps: float = 1e-3

    def __post_init__(self) -> None:
        require_schedule("edit", self.steps, eps=self.eps)
        for name in ("kappa", "kappa_high", "kappa_low", "high", "middle"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InvalidRequest("edit", f"`{name}` must be in [0, 1], got {value}")
        if self.high + self.middle > 1 + _ROUNDING:
            raise InvalidRequest(
                "edit",
                f"`high` and `middle` must be at most 1 together, got {self.high} and "
                f"{self.middle}",
            )

    @property
    def holds(self) -> bool:
        """True if it ever reopens anything."""
        return min(self.kappa, self.kappa_high, self.kappa_low) < 1

    def until(self, params: Any) -> Tensor:
        """The end of the last share whose kappa is below 1."""
        low = 1 - params.high - params.middle
        end = torch.where(params.kappa_high < 1, 1 - params.high, 1.0)
        end = torch.where(params.kappa < 1, low, end)
        return torch.where((params.kappa_low < 1) & (low > _ROUNDING), 0.0, end)

    def levels(self, step: Step, params: Any) -> tuple[Tensor, Tensor]:
        """The times themselves."""
        return step.now, step.then

    def sigma_at(self, view: StepView, step: Step, t: Tensor, s: Tensor, filled: Tensor) -> Tensor:
        """That of the kappa of its share of the time."""
        params, now = view.params, step.now - _ROUNDING
        kappa = torch.where(now > 1 - params.high - params.middle, params.kappa, params.kappa_low)
        kappa = torch.where(now > 1 - params.high, params.kappa_high, kappa)
        return sigma_of_kappa(s, kappa)


_ROUNDING = 1e-9
"""Keeps a time that is the border of two shares in the lower one, for all its rounding."""
