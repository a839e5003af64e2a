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
    refresh,
    refresh_due,
    require_period,
    require_prompt,
    steps_until_refresh,
)
from dlm.cache.geometry import (
    RowBounds,
    ShiftInfo,
    block_ends,
    bounds_of,
    make_plan,
    shift_queries,
    window,
)
from dlm.core import NO_POSITIONS, ForwardPlan, Ints, Kind, ModelInfo, Rows, Segment, bound, span
from dlm.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class NoCache:
    """Every step computes the whole visible canvas.

    Exact by definition, for every attention pattern.
    """

    tier = "T1"

    alignment: int = bound(1)
    computes = "the whole canvas"
    at_opening = False
    exact = True
    on_edit = "requery"
    stores = False
    shared_prefix = None

    def bind(self, info: ModelInfo) -> Self:
        """Take the trained block length of block-causal models."""
        return replace(self, alignment=info.alignment)

    def plan(self, rows: Rows) -> ForwardPlan:
        """All positions as queries, with logits up to the block's end.

        On block-causal models the queries, too, end with the block.
        """
        segments = []
        for b in bounds_of(rows.host):
            if self.alignment > 1:
                queries = span(0, b.end)
                key_end: int | Ints = block_ends(queries, self.alignment)
            else:
                queries, key_end = span(0, b.length), b.length
            predict = span(_first_predicted(rows, b), b.end)
            segments.append(Segment(b.row, 0, queries, key_end, write=True, predict=predict))
        return make_plan(rows, segments, ["step"] * rows.count)


def _first_predicted(rows: Rows, bounds: RowBounds) -> int:
    return bounds.prompt if rows.host.whole_row else max(bounds.start, bounds.prompt)


@dataclass(frozen=True, slots=True)
class Prefix(Bidirectional):
    """PrefixCache: keys before the block are frozen at its opening; the block and everything after
    it are recomputed (Fast-dLLM, arXiv 2505.22618).

    Approximate: keys before the block are as old as the block. `every`: all keys are refreshed so
    often inside a block, too (dInfer, arXiv 2510.08666).
    """

    tier = "T1"

    every: int | None = None
    frozen_prompt: Prompt = False
    shift: bool = bound(False)
    computes = "the block and all behind it, where a block opens the whole canvas"
    stale = "keys before the block are as old as the block"
    at_opening = True
    on_edit = "refuse"

    def __post_init__(self) -> None:
        require_prompt(self.frozen_prompt)
        require_period("every", self.every)

    @property
    def tier_as_set(self) -> str:
        """T1 for what Fast-dLLM's code was recorded with."""
        return "T1" if self.every is None and self.frozen_prompt is False else "T2"

    def plan(self, rows: Rows) -> ForwardPlan:
        """Refresh with the opening step; then from the block's start to the canvas end."""
        segments: list[Segment] = []
        purposes = []
        for b in bounds_of(rows.host):
            if fresh := refresh_due(b, self.every):
                segments.append(refresh(b))
            else:
                queries = span(b.start, b.length)
                segments.append(
                    Segment(b.row, 0, queries, b.length, write=True, predict=b.predicted)
                )
                segments += shift_queries(b, b.predicted, queries, b.length) if self.shift else []
            purposes.append("refresh step" if fresh else "step")
        return self.build_plan(
            rows, segments, purposes, valid_steps=steps_until_refresh(rows, self.every)
        )


@dataclass(frozen=True, slots=True)
class Dual(Bidirectional):
    """DualCache: keys on both sides of the block are frozen at its opening; only the block is
    recomputed (Fast-dLLM, arXiv 2505.22618).

    Approximate: keys outside the block are as old as the block. With `on_edit="requery"` rules may
    reopen or replace tokens before the block: every open position there, and every one whose stored
    key was made from another id, is then computed again in each step, so that no key is ever of
    another id than the canvas shows before the block. `every`: all keys are refreshed so often
    inside a block, too (dInfer, arXiv 2510.08666).
    """

    tier = "T1"

    on_edit: Literal["refuse", "requery"] = "refuse"
    every: int | None = None
    frozen_prompt: Prompt = False
    shift: bool = bound(False)
    computes = "the block, where a block opens the whole canvas"
    stale = "keys outside the block are as old as the block"
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

    def plan(self, rows: Rows) -> ForwardPlan:
        """Refresh with the opening step; then the block, and what edits have touched before it."""
        segments: list[Segment] = []
        purposes = []
        for b in bounds_of(rows.host):
            if fresh := refresh_due(b, self.every):
                segments.append(refresh(b, self._left_over(rows, b)))
            else:
                segments += window(b, b.length, ShiftInfo(self.shift))
                if self.on_edit == "requery":
                    segments += self._requeries(rows, b)
            purposes.append("refresh step" if fresh else "step")
        valid_steps = 1 if self.on_edit == "requery" else steps_until_refresh(rows, self.every)
        return self.build_plan(rows, segments, purposes, valid_steps=valid_steps)

    def _left_over(self, rows: Rows, b: RowBounds) -> Ints:
        """The open positions before the live blocks, where rules may reopen some."""
        if self.on_edit == "refuse":
            return NO_POSITIONS
        kind = rows.kind[b.row, b.prompt : b.start].cpu().numpy()
        return (kind >= Kind.MASK).nonzero()[0] + b.prompt

    def _requeries(self, rows: Rows, b: RowBounds) -> list[Segment]:
        """Scattered queries before the block: open positions and those with outdated keys.

        Open positions are predicted; the others are only refreshed.
        """
        behind = slice(b.prompt, b.start)
        is_open = rows.kind[b.row, behind].cpu().numpy() >= Kind.MASK
        dirty = (rows.kv_ids[b.row, behind] != rows.ids[b.row, behind]).cpu().numpy()
        queries = (is_open | dirty).nonzero()[0] + b.prompt
        if len(queries) == 0:
            return []
        predict = is_open.nonzero()[0] + b.prompt
        segments = [Segment(b.row, 0, queries, b.length, write=True, predict=predict)]
        return segments + (shift_queries(b, predict, queries, b.length) if self.shift else [])
