"""Freeze-and-refresh policies for bidirectional models: `none`, `prefix` and `dual`.

`prefix` and `dual` are from Fast-dLLM (arXiv 2505.22618). A bidirectional key depends on
everything, so a reused one is stale as soon as anything changed. These policies refresh all keys
with the step that opens a block and then recompute a part of the canvas until the block is clean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

from dlm.cache.bidirectional import (
    Bidirectional,
    Prompt,
    refresh_due,
    require_period,
    require_prompt,
    steps_until_refresh,
)
from dlm.cache.geometry import (
    Queries,
    RowBounds,
    RowPlan,
    RowPolicy,
    block_ends,
    refresh,
    window,
)
from dlm.core import NO_POSITIONS, Ints, Kind, ModelInfo, Rows, bound, span
from dlm.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class NoCache(RowPolicy):
    """Every step computes the whole visible canvas.

    Exact by definition, for every attention pattern.
    """

    tier = "T1"

    alignment: int = bound(1)
    computes = "the whole canvas"
    exact = True
    steady = True
    on_edit = "requery"

    def bind(self, info: ModelInfo) -> Self:
        """Take the trained block length of block-causal models."""
        return replace(self, alignment=info.alignment)

    def plan_row(self, rows: Rows, b: RowBounds) -> RowPlan:
        """All positions as queries, with logits up to the block's end.

        On block-causal models the queries, too, end with the block.
        """
        first = b.prompt if rows.host.whole_row else max(b.start, b.prompt)
        predict = span(first, b.end)
        if self.alignment == 1:
            return RowPlan((Queries(span(0, b.length), predict, b.length),))
        q_pos = span(0, b.end)
        return RowPlan((Queries(q_pos, predict, block_ends(q_pos, self.alignment)),))


@dataclass(frozen=True, slots=True)
class Prefix(Bidirectional):
    """PrefixCache: the step that opens a block computes all keys, the others those of the block and
    everything after it (Fast-dLLM, arXiv 2505.22618).

    Approximate: keys before the block date from its first step. `every`: all keys are computed
    again after this many steps inside a block, too (dInfer, arXiv 2510.08666).
    """

    tier = "T1"

    every: int | None = None
    frozen_prompt: Prompt = False
    shift: bool = bound(False)
    computes = "the block and all after it (the whole canvas in the step that opens a block)"
    reused = "keys before the block date from the step that opened the block"
    at_opening = True

    def __post_init__(self) -> None:
        require_prompt(self.frozen_prompt)
        require_period("every", self.every)

    @property
    def tier_as_set(self) -> str:
        """T1 for what Fast-dLLM's code was recorded with."""
        return "T1" if self.every is None and self.frozen_prompt is False else "T2"

    @property
    def steady(self) -> bool:
        """True without a period."""
        return self.every is None

    def plan_row(self, rows: Rows, b: RowBounds) -> RowPlan:
        """Refresh with the opening step; then from the block's start to the canvas end."""
        valid_steps = steps_until_refresh(b, self.every)
        if refresh_due(b, self.every):
            return refresh(b, valid_steps)
        return RowPlan((window(b, b.start, b.length),), valid_steps=valid_steps)


@dataclass(frozen=True, slots=True)
class Dual(Bidirectional):
    """DualCache: the step that opens a block computes all keys, the others those of the block alone
    (Fast-dLLM, arXiv 2505.22618).

    Approximate: keys outside the block date from its first step. With `on_edit="requery"` rules may
    reopen or replace tokens before the block: every open position there, and every one whose stored
    key was made from another id, is then computed again in each step, so that no key is ever of
    another id than the canvas shows before the block. `every`: all keys are computed again after
    this many steps inside a block, too (dInfer, arXiv 2510.08666).
    """

    tier = "T1"

    on_edit: Literal["refuse", "requery"] = "refuse"
    every: int | None = None
    frozen_prompt: Prompt = False
    shift: bool = bound(False)
    computes = "the block (the whole canvas in the step that opens a block)"
    reused = "keys outside the block date from the step that opened the block"
    at_opening = True

    def __post_init__(self) -> None:
        require_prompt(self.frozen_prompt)
        if self.on_edit not in ("refuse", "requery"):
            raise InvalidRequest(
                "cache", f"`on_edit` must be 'refuse' or 'requery', got {self.on_edit!r}"
            )
        require_period("every", self.every)

    @property
    def tier_as_set(self) -> str:
        """T1 for what Fast-dLLM's code was recorded with."""
        plain = self.every is None and self.frozen_prompt is False
        return "T1" if plain and self.on_edit == "refuse" else "T2"

    @property
    def steady(self) -> bool:
        """True without a period."""
        return self.every is None

    def plan_row(self, rows: Rows, b: RowBounds) -> RowPlan:
        """Refresh with the opening step; then the block, and what edits have touched before it.

        Of that the open positions are predicted; keys of other ids are only made again.
        """
        block, valid_steps = window(b, b.start, b.end), steps_until_refresh(b, self.every)
        if self.on_edit == "refuse":
            left_over = dirty = NO_POSITIONS
        else:
            left_over, dirty = self._reopened(rows, b)
            valid_steps = 1
        if refresh_due(b, self.every):
            return refresh(b, valid_steps, left_over)
        touched = (Queries(dirty, left_over, b.length),) if len(dirty) else ()
        return RowPlan((block, *touched), valid_steps=valid_steps)

    def _reopened(self, rows: Rows, b: RowBounds) -> tuple[Ints, Ints]:
        """The open positions before the block, and these with those whose keys are outdated."""
        before = slice(b.prompt, b.start)
        is_open = rows.kind[b.row, before].cpu().numpy() >= Kind.MASK
        dirty = (rows.kv_ids[b.row, before] != rows.ids[b.row, before]).cpu().numpy()
        return is_open.nonzero()[0] + b.prompt, (is_open | dirty).nonzero()[0] + b.prompt
