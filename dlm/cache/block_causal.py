"""The exact cache of block-causal models: a finished block's keys never change again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from dlm.cache.geometry import Queries, RowBounds, RowPlan, RowPolicy, block_ends
from dlm.core import NO_POSITIONS, ModelInfo, Rows, SharedPrefix, bound, span
from dlm.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class BlockCausal(RowPolicy):
    """Append-only cache (SDAR, LLaDA2, block diffusion: arXiv 2503.09573). Exact.

    The prompt's whole blocks are computed with the first step; a clean block's final keys are
    stored by the forward that also takes the next block's first step, so neither costs a forward of
    its own.
    """

    tier = "T1"

    alignment: int = bound(1)
    shift: bool = bound(False)
    computes = "the block (in its first step also what was filled before it)"
    exact = True
    steady = True
    stores = True

    def bind(self, info: ModelInfo) -> Self:
        """Raises `InvalidRequest` on models whose finished blocks still see later positions."""
        if info.attention != "block_causal":
            raise InvalidRequest(
                "cache",
                "'block_causal' is exact only for block-causal models; this one has "
                f"{info.attention} attention "
                f"({info.family}): use 'none', 'prefix' or 'dual'",
            )
        return replace(self, alignment=info.alignment, shift=info.shift)

    @property
    def shared_prefix(self) -> SharedPrefix:
        """Keys depend on nothing after their trained block."""
        return SharedPrefix("final", self.alignment)

    def plan_row(self, rows: Rows, b: RowBounds) -> RowPlan:
        """The live blocks, and everything before them whose keys are not final yet."""
        if b.stored >= b.start:
            return RowPlan((self._live(b),))
        return RowPlan(
            (*self._pending(b), self._live(b)), "store step" if b.clean else "prefill step"
        )

    def _pending(self, b: RowBounds) -> Iterator[Queries]:
        """Queries that store keys and predict nothing: of given blocks and clean ones.

        Given blocks that follow each other are computed together, every clean block by itself.
        """
        at = b.stored
        for start, end in (*b.clean, (b.start, b.start)):
            if at < start:
                given = span(at, start)
                yield Queries(given, NO_POSITIONS, block_ends(given, self.alignment))
            for cut in range(start, end, self.alignment):
                trained = cut + self.alignment
                yield Queries(span(cut, trained), NO_POSITIONS, trained)
            at = end

    def _live(self, b: RowBounds) -> Queries:
        """The live blocks; a query before them sees what is before them.

        Where they span several trained blocks, each query sees up to the end of its own block.
        """
        q_pos, several = span(b.start, b.end), b.end - b.start > self.alignment
        key_end = block_ends(q_pos, self.alignment) if several else b.end
        return Queries(q_pos, b.predicted, key_end, left_end=b.start)
