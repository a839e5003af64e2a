"""Policies for bidirectional models that freeze what has been filled, wherever it lies.

They follow the canvas, not the block: what is clean keeps its keys, what is open, or has just been
filled, is computed again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from dlm.cache.bidirectional import (
    Bidirectional,
    Prompt,
    refresh_due,
    require_period,
    require_prompt,
)
from dlm.cache.geometry import Queries, RowBounds, RowPlan, refresh, window
from dlm.core import Flags, Kind, Rows, bound, span
from dlm.errors import InvalidRequest

Frozen = Literal["prompt", "block", "token", "window"]


@dataclass(frozen=True, slots=True)
class FreeCache(Bidirectional):
    """FreeCache: keys of the clean prefix are frozen as it grows and never refreshed (FlashDLM,
    arXiv 2505.21467).

    The clean prefix ends before the first position that is open, or whose key does not show its
    token yet. `keeps`: the "prompt" alone; whole "block"s of `block` positions after it; every
    "token" but the last clean one; or all but a "window" of `window` positions on both sides of
    the first open one, and nothing is seen of what lies further right. Approximate: a key is that
    of the last forward that computed its position.
    """

    tier = "T2"

    keeps: Frozen = "block"
    block: int = 32
    window: int = 128
    frozen_prompt: Prompt = False
    shift: bool = bound(False)
    computes = "all that is not frozen (the whole canvas in the first step)"
    reused = "keys of the filled prefix date from the step that filled it, and are never made again"
    leaves_filled = True

    def __post_init__(self) -> None:
        require_prompt(self.frozen_prompt)
        if self.keeps not in get_args(Frozen):
            choices = ", ".join(map(repr, get_args(Frozen)))
            raise InvalidRequest("cache", f"`keeps` must be one of {choices}, got {self.keeps!r}")
        if self.block < 1 or self.window < 1:
            raise InvalidRequest(
                "cache",
                f"`block` and `window` must be at least 1, got {self.block} and {self.window}",
            )

    @property
    def shows_block(self) -> bool:
        """True if a step predicts all of a block, not a window of it."""
        return self.keeps != "window"

    def plan_row(self, rows: Rows, b: RowBounds) -> RowPlan:
        """From the first position that is not frozen on."""
        if b.step == 0:
            return refresh(b, 1)._replace(purpose="prefill step")
        is_open, unseen = (first(among, b) for among in open_and_dirty(rows, b))
        front = min(is_open, unseen)
        begin = {
            "prompt": b.prompt,
            "block": b.prompt + (front - b.prompt) // self.block * self.block,
            "token": max(front - 1, 0),
            "window": max(min(is_open - self.window, unseen), 0),
        }[self.keeps]
        end = min(is_open + self.window, b.length) if self.keeps == "window" else b.length
        predict = b.predicted[(b.predicted >= begin) & (b.predicted < end)]
        valid_steps = None if self.keeps == "prompt" else 1
        return RowPlan((Queries(span(begin, end), predict, end),), valid_steps=valid_steps)


@dataclass(frozen=True, slots=True)
class Vicinity(Bidirectional):
    """Compute the block and its neighbourhood; the step that opens a block computes all keys
    (dInfer, arXiv 2510.08666).

    `before`, `after`: positions on both sides of the block · `warmup`: first steps of a row that
    compute everything. Approximate: keys outside date from the block's first step.
    """

    tier = "T2"

    before: int = 16
    after: int = 16
    warmup: int = 4
    frozen_prompt: Prompt = False
    shift: bool = bound(False)
    computes = (
        "the block and its neighbourhood (the whole canvas in the step that opens a block, and in "
        "the first steps)"
    )
    reused = "keys outside the neighbourhood date from the step that opened the block"
    at_opening = True

    def __post_init__(self) -> None:
        require_prompt(self.frozen_prompt)
        if min(self.before, self.after, self.warmup) < 0:
            numbers = f"{self.before}, {self.after} and {self.warmup}"
            raise InvalidRequest(
                "cache", f"`before`, `after` and `warmup` must be at least 0, got {numbers}"
            )

    def plan_row(self, rows: Rows, b: RowBounds) -> RowPlan:
        """The whole canvas while a row is warm and where a block opens; then the neighbourhood."""
        warm = b.step < self.warmup
        valid_steps = self.warmup - b.step if warm else None
        if b.opening or warm:
            return refresh(b, valid_steps)
        around = window(b, max(b.start - self.before, 0), min(b.end + self.after, b.length))
        return RowPlan((around,))


@dataclass(frozen=True, slots=True)
class Delayed(Bidirectional):
    """dKV-Cache: a token's key is stored one step after it was committed, when it has been seen as
    a token; what is open is computed in every step (arXiv 2505.15781).

    `every`: all keys are computed again after this many steps, and where a block opens · `warmup`:
    first steps of a row that compute everything. Approximate: keys are up to `every` steps old, and
    none is ever of another id than the canvas shows.
    """

    tier = "T2"

    every: int = 8
    warmup: int = 2
    frozen_prompt: Prompt = False
    shift: bool = bound(False)
    computes = (
        "all that is open or new (the whole canvas where a block opens, and every `every` steps)"
    )
    reused = "keys of committed tokens are at most `every` steps old"
    on_edit = "requery"
    leaves_filled = True

    def __post_init__(self) -> None:
        require_prompt(self.frozen_prompt)
        require_period("every", self.every)
        if self.warmup < 0:
            raise InvalidRequest("cache", f"`warmup` must be at least 0, got {self.warmup}")

    def plan_row(self, rows: Rows, b: RowBounds) -> RowPlan:
        """The whole canvas when due; else what is open, and what its stored key does not show."""
        is_open, unseen = open_and_dirty(rows, b)
        wanted = is_open.nonzero()[0]
        if refresh_due(b, self.every) or b.step < self.warmup:
            return refresh(b, 1, wanted[wanted < b.start])
        changed = (is_open | unseen).nonzero()[0]
        return RowPlan((Queries(changed, wanted[wanted < b.end], b.length),), valid_steps=1)


def open_and_dirty(rows: Rows, b: RowBounds) -> tuple[Flags, Flags]:
    """`[L]` each: where a row is open, and where no key shows yet what stands there."""
    canvas = slice(0, b.length)
    is_open = rows.kind[b.row, canvas].cpu().numpy() >= Kind.MASK
    return is_open, (rows.kv_ids[b.row, canvas] != rows.ids[b.row, canvas]).cpu().numpy()


def first(among: Flags, b: RowBounds) -> int:
    """The first position of a mask `[L]`, the canvas's end where there is none."""
    return int(among.argmax()) if among.any() else b.length
