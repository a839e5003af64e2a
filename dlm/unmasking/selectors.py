"""What unmaskers share: scores, ranks and transfer schedules."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from dlm.core import Kind, StepView, Tempered
from dlm.errors import InvalidRequest
from dlm.rng import uniforms

Score = Literal["confidence", "entropy", "margin", "random", "left"]
SCORES: tuple[Score, ...] = get_args(Score)
Schedule = Literal["even", "linear", "cosine", "power", "eps"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
ConfFrom = Literal["clean", "tempered"]
"""Whose numbers a rule reads: of the clean logits (LLaDA, Fast-dLLM), or of the distribution that
tokens are drawn from, tempered and filtered (Dream, SDAR).
"""

ORDER_STREAM = 1
"""Stream of the uniforms that order positions; stream 0 draws tokens."""


def require_ordered(low: str, least: float, high: str, most: float) -> None:
    """Raise `InvalidRequest` unless the thresholds named `low` and `high` are in order."""
    if not 0 <= least <= most <= 1:
        raise InvalidRequest(
            "unmask",
            f"`{low}` and `{high}` must be 0 <= {low} <= {high} <= 1, got {least} and {most}",
        )


def require_share(name: str, value: float) -> None:
    """Raise `InvalidRequest` unless an unmasker's `name` is between 0 and 1."""
    if not 0 <= value <= 1:
        raise InvalidRequest("unmask", f"`{name}` must be between 0 and 1, got {value}")


def require_conf_from(value: ConfFrom) -> None:
    """Raise `InvalidRequest` unless it is one of the two."""
    if value not in get_args(ConfFrom):
        choices = " or ".join(map(repr, get_args(ConfFrom)))
        raise InvalidRequest("unmask", f"`conf_from` must be {choices}, got {value!r}")


def require_schedule(kind: str, steps: int | None, *, power: float = 1.0, eps: float = 0.5) -> None:
    """Raise `InvalidRequest` for numbers that no schedule can follow."""
    if steps is not None and steps < 1:
        raise InvalidRequest(kind, f"`steps` must be at least 1, got {steps}")
    if not power > 0:
        raise InvalidRequest(kind, f"`power` must be greater than 0, got {power}")
    if not 0 < eps < 1:
        raise InvalidRequest(kind, f"`eps` must be in (0, 1), got {eps}")


def needs_of(score: Score, conf_from: ConfFrom = "clean") -> frozenset[str]:
    """Statistics a score reads beyond the confidence."""
    if conf_from == "tempered":
        return frozenset({"tempered"})
    return frozenset({score}) if score in ("entropy", "margin") else frozenset()


def confidence_of(view: StepView, conf_from: ConfFrom) -> Tensor:
    """`[R, W]`: the probability of the token."""
    return view.c if conf_from == "clean" else tempered_of(view).c


def tempered_of(view: StepView) -> Tempered:
    """What `needs` has asked for."""
    assert view.tempered is not None
    return view.tempered


def score_of(score: Score, view: StepView, conf_from: ConfFrom = "clean") -> Tensor:
    """`[R, W]`: higher commits earlier."""
    if score == "left":
        return -view.pos.double()
    if score == "random":
        return uniforms(view.seed, view.path, view.pos, view.step, ORDER_STREAM)
    of = view if conf_from == "clean" else tempered_of(view)
    value = {"confidence": of.c, "entropy": of.entropy, "margin": of.margin}[score]
    assert value is not None
    return -value if score == "entropy" else value


def top(score: Tensor, among: Tensor, count: Tensor) -> Tensor:
    """The `count [R, 1]` best of `among [R, W]` as a mask; ties go to the leftmost position."""
    ranked = score.masked_fill(~among, -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(ranked).scatter_(
        1, ranked, torch.arange(score.shape[1], device=score.device).expand_as(ranked)
    )
    return among & (rank < count)


def first_position(view: StepView) -> Tensor:
    """`[R, W]`: the first eligible position of each row."""
    return view.eligible & (view.eligible.cumsum(dim=1) == 1)


def opens_alone(view: StepView, commit: Tensor) -> Tensor:
    """`[R, W]`: the first position where the block of a row has just opened, `commit` elsewhere.

    Fast-dLLM's cached steps on Dream cannot predict a block's first position, whose logits are
    those of the position before it; so the forward that renews the keys commits it, and it alone.
    """
    (step,) = view.of_first_block(view.blocks.step)
    return torch.where(step == 0, first_position(view), commit)


def clock_of(view: StepView, total: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """`[R, 1]` each: step, steps and masks at the opening of the block that each row is in.

    `total [R, 1]` steps for the whole answer are shared out to the blocks by what they have to
    fill; None is as many steps as masks.
    """
    blocks = view.blocks
    start, end, step, masks = view.of_first_block(
        blocks.start, blocks.end, blocks.step, blocks.masks
    )
    steps = masks
    if total is not None:
        inside = (view.pos >= start) & (view.pos < end) & (view.kind != Kind.PROMPT)
        size = inside.sum(dim=1, keepdim=True)
        steps = torch.div(total * size, view.to_fill[:, None], rounding_mode="floor")
    return step, steps.clamp_min(1), masks


def scheduled_count(view: StepView, schedule: Schedule, total: Tensor | None, knob: Any) -> Tensor:
    """`[R, 1]`: the schedule's count for the block that each row is in.

    `total [R, 1]` as in `clock_of`. A clock that has run out takes all that is open. `knob` holds
    `power` and `eps` where the schedule reads them.
    """
    if total is None and schedule == "even":
        return torch.ones_like(view.step)[:, None]
    step, steps, masks = clock_of(view, total)
    open_now = view.eligible.sum(dim=1, keepdim=True)
    if schedule == "even":
        count = even_counts(masks, step, steps)
    elif schedule == "eps":
        count = (open_now * eps_share(step, steps, knob.eps) + ROUNDING).long()
    else:
        count = curve_counts(schedule, masks, step, steps, knob.power)
    return torch.where(step < steps, count, open_now)


def even_counts(masks: Tensor, step: Tensor, steps: Tensor) -> Tensor:
    """How many of `masks` to commit in `step` of `steps`, in equal shares.

    The remainder goes to the first steps, one each (LLaDA).
    """
    share = torch.div(masks, steps, rounding_mode="floor")
    return share + (step < masks - share * steps)


def curve_counts(
    schedule: Schedule, masks: Tensor, step: Tensor, steps: Tensor, power: Tensor | float
) -> Tensor:
    """How many of `masks` to commit in `step` of `steps`, by a MaskGIT curve (arXiv 2202.04200).

    The differences of `masks - floor(masks * gamma(step / steps))`, where gamma falls from 1 to 0:
    `linear` 1 - r, `cosine` cos(pi r / 2), `power` 1 - r ** power.
    """

    def left(at: Tensor) -> Tensor:
        ratio = (at.double() / steps).clamp_max(1.0)
        if schedule == "cosine":
            gamma = torch.cos(ratio * (math.pi / 2))
        elif schedule == "power":
            gamma = 1 - ratio**power
        else:
            gamma = 1 - ratio
        return (masks * gamma + ROUNDING).floor().long()

    return left(step) - left(step + 1)


def eps_share(step: Tensor, steps: Tensor, eps: Tensor) -> Tensor:
    """Dream's share of the open positions: `1 - s / t` on times from 1 to `eps`; at last, all.

    Of few positions an early share is less than one.
    """
    now = 1 - (1 - eps.double()) * step / steps
    following = 1 - (1 - eps.double()) * (step + 1) / steps
    return torch.where(step >= steps - 1, 1.0, 1 - following / now)


def warmed(score: Tensor, temperature: Tensor, view: StepView) -> Tensor:
    """`[R, W]`: a score whose best positions are a draw without replacement, with probabilities
    `softmax(score / temperature)` (Gumbel-top-k, arXiv 1903.06059; Dream's `alg_temp`).
    """
    u = uniforms(view.seed, view.path, view.pos, view.step, ORDER_STREAM)
    return score / temperature - torch.log(-torch.log(u.clamp_min(_TINY)))


_TINY = 1e-300
"""A uniform may be 0, its logarithm must not be infinite."""
ROUNDING = 1e-9
"""Keeps a share that is a whole number from being rounded down."""
