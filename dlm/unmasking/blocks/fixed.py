"""Blocks of the whole canvas and of fixed length, and the left-to-right order of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor

from dlm.core import (
    BlockScheduler,
    BlockTable,
    Level,
    ModelInfo,
    Phase,
    Progress,
    Rows,
    StepView,
    bound,
)
from dlm.errors import InvalidRequest


def next_start(next_unopened: Tensor, alignment: int) -> Tensor:
    """`[R]`: where the next block starts: at the next position that is to be filled.

    Blocks of models with trained blocks start at the border at or before it, so that what is given
    there, such as the prompt's tail, shares the block.
    """
    return torch.div(next_unopened, alignment, rounding_mode="floor") * alignment


def advance_in_order(table: BlockTable, progress: Progress, alignment: int) -> BlockTable:
    """Close filled blocks and open the next ones.

    Where no block is live and canvas is left, the next one opens, up to its reach.
    """
    opened = torch.where(table.phase == Phase.OPENING, int(Phase.OPEN), table.phase)
    filled = table.live & (progress.open_count == 0)
    phase = torch.where(filled, int(Phase.CLEAN if progress.stores else Phase.STORED), opened)
    start = next_start(progress.next_unopened, alignment)
    ahead = progress.next_unopened < progress.length
    wants = progress.live & ~(phase <= Phase.OPEN).any(dim=1) & ahead
    return append_block(
        replace(table, phase=phase),
        wants,
        start,
        torch.minimum(progress.max_end, progress.length),
        Level.FULL,
    )


def append_block(
    table: BlockTable, wants: Tensor, start: Tensor, end: Tensor, level: Tensor | int
) -> BlockTable:
    """Add an OPENING block `start:end` to the rows that want one, after dropping stored columns.

    All `[R]`; `level [R, 1]` or one number. Where no row wants one the table is as it was.
    """
    if not bool(wants.any()):
        return table
    used = table.phase != Phase.STORED
    order = torch.where(used, table.start, torch.iinfo(torch.long).max).argsort(dim=1, stable=True)
    table = BlockTable(*(getattr(table, name).gather(1, order) for name in BlockTable.__slots__))
    column = torch.arange(order.shape[1])
    at = wants[:, None] & (column == used.sum(dim=1)[:, None])
    return BlockTable(
        start=torch.where(at, start[:, None], table.start),
        end=torch.where(at, end[:, None], table.end),
        phase=torch.where(at, int(Phase.OPENING), table.phase),
        level=torch.where(at, level, table.level),
        step=torch.where(at, 0, table.step),
        masks=torch.where(at, 0, table.masks),
    )


class InOrder(BlockScheduler):
    """Blocks one after another; with `alignment`, from the borders of trained blocks on."""

    __slots__ = ()

    alignment: int = 1

    def advance(self, table: BlockTable, progress: Progress, params: Any) -> BlockTable:
        """One block after another."""
        return advance_in_order(table, progress, self.alignment)


@dataclass(frozen=True, slots=True)
class Whole(InOrder):
    """One block: the whole canvas."""

    tier = "T1"

    def bind(self, info: ModelInfo) -> Self:
        """Raises `InvalidRequest` for block-causal models, trained on short blocks only."""
        if info.attention == "block_causal":
            name = type(self).__name__.lower()
            raise InvalidRequest(
                "blocks",
                f"{name!r} needs full attention; this model has trained blocks of "
                f"{info.block_length}",
            )
        return self

    def num_blocks(self, tokens: int) -> int:
        """One."""
        return 1

    def block_sizes(self, still_open: Sequence[bool]) -> list[int]:
        """All in one."""
        return [sum(still_open)]

    def max_end(self, rows: Rows, params: Any) -> Tensor:
        """The canvas end."""
        return rows.host.length


@dataclass(frozen=True, slots=True)
class Sliding(Whole):
    """One block, of which a step may commit within `width` positions of the first open one (DSB,
    arXiv 2602.05992).

    `by`: the width counts positions (`"position"`, DSB's constant window), or open ones alone
    (`"open"`, its greedy window: each commit lets the window reach one position further).
    """

    tier = "T2"

    width: int = 32
    by: Literal["position", "open"] = "position"

    restricts = True

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InvalidRequest("blocks", f"`width` must be at least 1, got {self.width}")
        if self.by not in ("position", "open"):
            raise InvalidRequest("blocks", f"`by` must be 'position' or 'open', got {self.by!r}")

    def restrict(self, view: StepView) -> Tensor:
        """Offer the open positions near the first one, or the first ones of them."""
        if self.by == "open":
            first: Tensor = view.eligible.cumsum(dim=1) <= view.params.width
            return view.eligible & first
        near: Tensor = view.pos < first_open(view) + view.params.width
        return view.eligible & near


def first_open(view: StepView) -> Tensor:
    """`[R, 1]`: the first eligible position (any position where none is)."""
    first = view.eligible.int().argmax(dim=1, keepdim=True)
    return view.pos.gather(1, first)


@dataclass(frozen=True, slots=True)
class Fixed(InOrder):
    """Blocks of `length` positions, left to right (LLaDA, arXiv 2502.09992 B.3).

    Semi-autoregressive decoding. `length=None` takes the trained block of block-causal models, 32
    elsewhere. `trained`: on block-causal models take no other length than theirs, for there the
    reference codes' `block_length` is that of the attention, too.
    """

    tier = "T1"

    length: int | None = None
    trained: bool = field(default=False, kw_only=True, repr=False)
    alignment: int = bound(1)

    def __post_init__(self) -> None:
        if self.length is not None and self.length < 1:
            raise InvalidRequest("blocks", f"`length` must be at least 1, got {self.length}")

    def bind(self, info: ModelInfo) -> Self:
        """Raises `InvalidRequest` unless the length is a multiple of the trained block."""
        length = self.length or info.block_length or 32
        if self.trained and info.attention == "block_causal" and length != info.block_length:
            raise InvalidRequest(
                "block_length",
                f"is that of this model's attention, too, which has blocks of {info.block_length}, "
                f"got {length}: load it with overrides={{'block_length': {length}}} to change that",
            )
        if length % info.alignment:
            raise InvalidRequest(
                "blocks",
                f"`length` must be a multiple of {info.alignment}, this block-causal model's "
                "trained block, "
                f"got {length}",
            )
        return replace(self, length=length, alignment=info.alignment, trained=False)

    def block_sizes(self, still_open: Sequence[bool]) -> list[int]:
        """The next block starts at the next open position, or the border before it."""
        assert self.length is not None
        sizes, end = [], 0
        while any(still_open[end:]):
            start = still_open.index(True, end) // self.alignment * self.alignment
            end = start + self.length
            sizes.append(sum(still_open[start:end]))
        return sizes

    def num_blocks(self, tokens: int) -> int:
        """`tokens / length`, rounded up."""
        assert self.length is not None
        return -(-tokens // self.length)

    def max_end(self, rows: Rows, params: Any) -> Tensor:
        """`length` positions on."""
        end: Tensor = next_start(rows.host.next_unopened, self.alignment) + params.length[:, 0]
        return end


@dataclass(frozen=True, slots=True)
class SubBlocks(Fixed):
    """Blocks whose keys are treated as one block's, filled in sub-blocks of `sub` positions, one
    after the other (Fast-dLLM v2, arXiv 2509.26328).

    `first_alone`: where a block opens with its first position still open, the opening step fills
    that one alone, as v2's code takes it from the last logits of the block before.
    """

    tier = "T1"

    sub: int = 8
    first_alone: bool = False

    restricts = True

    def __post_init__(self) -> None:
        Fixed.__post_init__(self)
        if self.sub < 1:
            raise InvalidRequest("blocks", f"`sub` must be at least 1, got {self.sub}")

    def least_steps(self, tokens: int) -> int:
        """One for each sub-block."""
        return -(-tokens // self.sub)

    def restrict(self, view: StepView) -> Tensor:
        """Offer the open positions of the first sub-block that has any."""
        start, step = view.of_first_block(view.blocks.start, view.blocks.step)
        number = torch.div(view.pos - start, view.params.sub, rounding_mode="floor")
        current = torch.div(first_open(view) - start, view.params.sub, rounding_mode="floor")
        inside: Tensor = view.eligible & (number == current)
        alone = self.first_alone & (step == 0) & (first_open(view) == start)
        return inside & (~alone | (view.pos == start))
