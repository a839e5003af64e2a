"""The number of forwards of a schedule, computed before any of them runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from dlm.config import BoundConfig
from dlm.unmasking.blocks.fixed import Fixed, Whole
from dlm.unmasking.edit.rcr import RCR
from dlm.unmasking.schedules import ROUNDING, curve_counts, eps_share, even_counts
from dlm.unmasking.unmask.topk import TopK

LONGEST_CLOCK: Final = 4096
"""Steps of a schedule up to which its clock is run beforehand."""


def scheduled_forwards(bound: BoundConfig, part: Any, alignment: int) -> tuple[int, int] | None:
    """The least and the most forwards that an answer takes under the schedule of `part`, over all
    lengths of its prompt; None where they are not known beforehand.

    Trained blocks of `alignment` positions start at the canvas's beginning, so that the prompt's
    tail shares the first one, and the last one is filled up.
    """
    schedulers, parts = (Fixed, Whole), bound.parts
    plain = type(part) in (TopK, RCR) and not getattr(part, "first_alone", False)
    shown = parts.eligibility_filter is None and getattr(parts.cache, "shows_block", True)
    if not plain or not shown or type(parts.blocks) not in schedulers:
        return None
    if (part.steps or 0) > LONGEST_CLOCK:
        return None
    counts = [_forwards(part, parts.blocks, _open(bound, at, alignment)) for at in range(alignment)]
    return min(counts), max(counts)


def _open(bound: BoundConfig, prompt: int, alignment: int) -> list[bool]:
    """The positions of a canvas that are to be filled, after a prompt of `prompt` positions more
    than whole blocks.
    """
    pinned = [token is not None for token in bound.pinned] or [False] * bound.length
    surplus = -(prompt + bound.length) % alignment
    return [False] * prompt + [not pinned for pinned in pinned] + [True] * surplus


def _forwards(part: Any, blocks: Any, still_open: Sequence[bool]) -> int:
    """The forwards of all blocks of one canvas."""
    total = sum(still_open)
    return sum(_steps(part, size, total) for size in _sizes(blocks, still_open))


def _sizes(blocks: Any, still_open: Sequence[bool]) -> Iterator[int]:
    """The open positions of each block; the next block starts at the next open position."""
    end, length = 0, len(still_open)
    while any(still_open[end:]):
        start = still_open.index(True, end) // blocks.alignment * blocks.alignment
        end = length if isinstance(blocks, Whole) else min(start + blocks.length, length)
        yield sum(still_open[start:end])


def _steps(part: Any, size: int, total: int) -> int:
    """The forwards of a block of `size` positions, of `total` in the answer, as its clock runs."""
    if part.steps is None and part.schedule == "even":
        return size
    steps = size if part.steps is None else max(part.steps * size // total, 1)
    left = size
    for step in range(steps):
        left -= int(_count(part, size, left, step, steps))
        if left <= 0:
            return step + 1
    return steps + 1


def _count(part: Any, size: int, left: int, step: int, steps: int) -> Tensor:
    """The number of positions of a block that a step commits."""
    masks, now, all_steps = (torch.tensor(number) for number in (size, step, steps))
    if part.schedule == "even":
        return even_counts(masks, now, all_steps)
    if part.schedule == "eps":
        share = eps_share(now, all_steps, torch.tensor(part.eps))
        return (left * share + ROUNDING).long()
    return curve_counts(part.schedule, masks, now, all_steps, part.power)
