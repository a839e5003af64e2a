"""When a row ends before its canvas is full."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from dlm.core import Kind, ModelInfo, Rows, StepView, Stop, StopRule, is_one_of
from dlm.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Eos(StopRule):
    """End the row when an end id is committed and nothing before it is open; the positions after it
    are left out of the answer.

    `when="block"` waits until the block is clean, as the block-diffusion references do (SDAR,
    LLaDA2). `ids` adds ids to the model's end ids; `only=True` takes `ids` alone.
    """

    tier = "T1"

    when: Literal["prefix", "block"] = "prefix"
    ids: tuple[int, ...] = ()
    only: bool = False

    def __post_init__(self) -> None:
        if self.when not in ("prefix", "block"):
            raise InvalidRequest("stop", f"`when` must be 'prefix' or 'block', got {self.when!r}")

    @property
    def tier_as_set(self) -> str:
        """T1 for SDAR's and LLaDA2's; no reference ends inside a block."""
        return "T1" if self.when == "block" else "T2"

    @property
    def waits_for_clean_block(self) -> bool:
        """True if it waits for clean blocks."""
        return self.when == "block"

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The ids at which the answer's text ends."""
        return self.ids

    def bind(self, info: ModelInfo) -> Self:
        """Add the model's end ids."""
        ids = self.ids if self.only else tuple(dict.fromkeys(self.ids + info.eos_ids))
        if not ids:
            why = "`only` takes `ids` alone" if self.only else "the model's config names none"
            raise InvalidRequest(
                "stop", f"'eos' needs end ids, and {why}: give `ids`, or stop 'none'"
            )
        info.check_answer_ids("stop", ids)
        return replace(self, ids=ids)

    def __call__(self, rows: Rows, view: StepView) -> Stop:
        """Is an end id there, and nothing open that belongs before it?"""
        if self.when == "block":
            return Stop(self._ends_clean_block(rows, view))
        still_open = (view.kind >= Kind.MASK) & view.valid
        committed = (view.kind == Kind.COMMITTED) & (view.pos < view.row.limit[:, None])
        ends = committed & is_one_of(view.ids, self.ids)
        return Stop((ends & (still_open.cumsum(dim=1) == 0)).any(dim=1))

    def _ends_clean_block(self, rows: Rows, view: StepView) -> Tensor:
        """`[R]`: nothing is open up to the end of the block that holds the first end id.

        The block may have closed while later ones of a pipeline are open, so the whole canvas is
        looked at; an id in a closed block is judged by what stands before it.
        """
        at = torch.arange(rows.capacity, device=rows.device)
        generated = (rows.kind == Kind.COMMITTED) & (at < rows.limit[:, None])
        ends = generated & is_one_of(rows.ids, self.ids)
        first = ends.int().argmax(dim=1, keepdim=True)  # [R, 1]
        blocks = view.blocks
        holds = blocks.live & (blocks.start <= first) & (first < blocks.end)
        border = torch.where(holds, blocks.end, first).amax(dim=1, keepdim=True)
        still_open = (rows.kind >= Kind.MASK) & (at < border)
        return ends.any(dim=1) & ~still_open.any(dim=1)
