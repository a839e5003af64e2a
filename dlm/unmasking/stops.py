"""When a row ends before its canvas is full."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

from dlm.core import Kind, ModelInfo, Rows, StepView, Stop, is_one_of
from dlm.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Eos:
    """End the row when an end id is committed and nothing before it is open; what follows it dies.

    `when="block"` waits until the block is clean, as the block-diffusion references do (SDAR,
    LLaDA2). `ids` adds ids to the model's end ids; `only=True` takes `ids` alone.
    """

    tier = "T1"

    when: Literal["prefix", "block"] = "prefix"
    ids: tuple[int, ...] = ()
    only: bool = False

    reason = "stop"

    def __post_init__(self) -> None:
        if self.when not in ("prefix", "block"):
            raise InvalidRequest("stop", f"`when` must be 'prefix' or 'block', got {self.when!r}")

    @property
    def patient(self) -> bool:
        """Whether it waits for clean blocks."""
        return self.when == "block"

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Where the answer's text ends: at these ids."""
        return self.ids

    def bind(self, info: ModelInfo) -> Self:
        """Add the model's end ids."""
        ids = self.ids if self.only else tuple(dict.fromkeys(self.ids + info.eos_ids))
        if not ids:
            raise InvalidRequest(
                "stop", "'eos' needs end ids: the model's config names none, give `ids`"
            )
        info.check_ids("stop", ids)
        return replace(self, ids=ids)

    def __call__(self, rows: Rows, view: StepView) -> Stop:
        """Look at the view's window: everything open before a block's end is in it."""
        still_open = (view.kind >= Kind.MASK) & view.valid
        committed = (view.kind == Kind.COMMITTED) & (view.pos < view.limit[:, None])
        ends = committed & is_one_of(view.ids, self.ids)
        if self.when == "block":
            inside = view.pos < view.blocks.end.gather(1, view.block)
            return Stop(ends.any(dim=1) & ~(still_open & inside).any(dim=1))
        return Stop((ends & (still_open.cumsum(dim=1) == 0)).any(dim=1))
