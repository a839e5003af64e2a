"""A policy for pipelines on bidirectional models: blocks are frozen once they have settled."""

from __future__ import annotations

from dataclasses import dataclass

from dlm.cache.bidirectional import Bidirectional, Prompt, require_period, require_prompt
from dlm.cache.geometry import Queries, RowBounds, RowPlan
from dlm.core import Kind, Rows, bound, span
from dlm.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class DelayedBlocks(Bidirectional):
    """A filled block keeps being computed for `delay` forwards before its keys are frozen, and
    nothing is seen of the positions after the live blocks (d3LLM, arXiv 2601.07568).

    While a block waits, and every `every` steps (None: never), a step computes everything before
    the live blocks' end, too. `block`: positions of a block, from the prompt's end on. Approximate:
    frozen keys are as old as the last such step.
    """

    tier = "T2"

    block: int = 32
    delay: int = 1
    every: int | None = None
    frozen_prompt: Prompt = False
    shift: bool = bound(False)
    computes = "the blocks that have not settled (all before them, too, while one of them waits)"
    reused = "keys of settled blocks date from the step in which the last block settled"

    def __post_init__(self) -> None:
        require_prompt(self.frozen_prompt)
        require_period("every", self.every)
        if self.block < 1 or self.delay < 1:
            raise InvalidRequest(
                "cache", f"`block` and `delay` must be at least 1, got {self.block}, {self.delay}"
            )

    def plan_row(self, rows: Rows, b: RowBounds) -> RowPlan:
        """The positions that have not settled yet; all up to the front where a refresh is due."""
        begin, waits = self._settled(rows, b)
        fresh = waits or b.step == 0 or (self.every is not None and b.step % self.every == 0)
        first = 0 if fresh else begin
        own = Queries(span(first, b.end), b.predicted[b.predicted >= first], b.end)
        return RowPlan((own,), "refresh step" if fresh else "step", 1)

    def _settled(self, rows: Rows, b: RowBounds) -> tuple[int, bool]:
        """The end of the settled blocks, and whether the next one is filled and waits."""
        kinds, born = (t[b.row, : b.length].cpu() for t in (rows.kind, rows.born))
        for start in range(b.prompt, b.length, self.block):
            own = slice(start, min(start + self.block, b.length))
            if bool((kinds[own] >= Kind.MASK).any()):
                return start, False
            if b.clock - 1 - int(born[own].max()) < self.delay:
                return start, True
        return b.length, False
