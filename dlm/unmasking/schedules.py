"""Schedules: the number of positions that a step of a block commits."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from dlm.core import StepView
from dlm.errors import InvalidRequest

Schedule = Literal["even", "linear", "cosine", "power", "eps"]


SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)


def require_schedule(kind: str, steps: int | None, *, power: float = 1.0, eps: float = 0.5) -> None:
    """Raise `InvalidRequest` for numbers that no schedule can follow."""
    if steps is not None and steps < 1:
        raise InvalidRequest(kind, f"`steps` must be at least 1, got {steps}")
    if not power > 0:
        raise InvalidRequest(kind, f"`power` must be greater than 0, got {power}")
    if not 0 < eps < 1:
        raise InvalidRequest(kind, f"`eps` must be in (0, 1), got {eps}")


def clock_of(view: StepView, total: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """`[R, 1]` each: step, steps and masks at the opening of the block that each row is in.

    `total [R, 1]` steps for the whole answer are shared out to the blocks by what they have to
    fill; None is as many steps as masks.
    """
    step, masks = view.of_first_block(view.blocks.step, view.blocks.masks)
    steps = masks
    if total is not None:
        steps = torch.div(total * masks, view.row.initial_masks[:, None], rounding_mode="floor")
    return step, steps.clamp_min(1), masks


def scheduled_count(
    view: StepView, schedule: Schedule, total: Tensor | None, params: Any
) -> Tensor | Literal[1]:
    """The schedule's count for the block that each row is in, `[R, 1]`, or one for all.

    `total [R, 1]` as in `clock_of`. A clock that has run out takes all that is open. `params` holds
    `power` and `eps` where the schedule reads them.
    """
    if total is None and schedule == "even":
        return 1
    step, steps, masks = clock_of(view, total)
    open_now = view.eligible.sum(dim=1, keepdim=True)
    if schedule == "even":
        count = even_counts(masks, step, steps)
    elif schedule == "eps":
        count = (open_now * eps_share(step, steps, params.eps) + ROUNDING).long()
    else:
        count = curve_counts(schedule, masks, step, steps, params.power)
    return torch.where(step < steps, count, open_now)


LONGEST_CLOCK = 4096
"""Steps of a schedule up to which its clock is run beforehand."""


def steps_of_block(rule: Any, masks: int, total: int) -> int | None:
    """The steps in which a schedule fills a block of `masks` positions, of `total` in the answer:
    its clock is run beforehand. None where it is too long.

    `rule` holds `steps`, `schedule`, and `power` or `eps` where the schedule reads them.
    """
    if rule.steps is None and rule.schedule == "even":
        return masks
    if (rule.steps or 0) > LONGEST_CLOCK:
        return None
    steps = masks if rule.steps is None else max(rule.steps * masks // total, 1)
    size, all_steps, left = torch.tensor(masks), torch.tensor(steps), masks
    for step in range(steps):
        now = torch.tensor(step)
        if rule.schedule == "even":
            count = even_counts(size, now, all_steps)
        elif rule.schedule == "eps":
            count = (left * eps_share(now, all_steps, torch.tensor(rule.eps)) + ROUNDING).long()
        else:
            count = curve_counts(rule.schedule, size, now, all_steps, rule.power)
        left -= int(count)
        if left <= 0:
            return step + 1
    return steps + 1


def even_counts(masks: Tensor, step: Tensor, steps: Tensor) -> Tensor:
    """The share of `masks` to commit in `step` of `steps`, all shares equal.

    The remainder goes to the first steps, one each (LLaDA).
    """
    share = torch.div(masks, steps, rounding_mode="floor")
    return share + (step < masks - share * steps)


def curve_counts(
    schedule: Schedule, masks: Tensor, step: Tensor, steps: Tensor, power: Tensor | float
) -> Tensor:
    """The share of `masks` to commit in `step` of `steps`, by a MaskGIT curve (arXiv 2202.04200).

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


def time_of(step: Tensor, steps: Tensor, eps: Tensor) -> Tensor:
    """The time at which `step` of `steps` begins: it falls from 1 to `eps`, evenly."""
    return 1 - (1 - eps.double()) * step / steps


def eps_share(step: Tensor, steps: Tensor, eps: Tensor) -> Tensor:
    """Dream's share of the open positions: `1 - s / t` on times from 1 to `eps`; at last, all.

    Of few positions an early share is less than one.
    """
    now, following = time_of(step, steps, eps), time_of(step + 1, steps, eps)
    return torch.where(step >= steps - 1, 1.0, 1 - following / now)


ROUNDING = 1e-9
"""Keeps a share that is a whole number from being rounded down."""
