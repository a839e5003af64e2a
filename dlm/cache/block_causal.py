"""The exact cache of block-causal models: a finished block's keys never change again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from dlm.cache.geometry import RowBounds, ShiftInfo, block_ends, bounds_of, make_plan, window
from dlm.core import NO_POSITIONS, ForwardPlan, ModelInfo, Rows, Segment, SharedPrefix, bound, span
from dlm.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class BlockCausal:
    """Append-only cache (SDAR, LLaDA2, block diffusion: arXiv 2503.09573). Exact.

    The prompt's whole blocks are computed with the first step; a clean block's final keys are
    stored by the forward that also takes the next block's first step, so neither costs a forward of
    its own.
    """

    tier = "T1"

    alignment: int = bound(1)
    shift: bool = bound(False)
    computes = "the block, and once what was filled before it"
    at_opening = False
    exact = True
    on_edit = "refuse"
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
        """Keys depend on nothing behind their trained block."""
        return SharedPrefix("final", self.alignment)

    def plan(self, rows: Rows) -> ForwardPlan:
        """The live blocks, and everything before them whose keys are not final yet."""
        segments: list[Segment] = []
        purposes = []
        for b in bounds_of(rows.host):
            purpose = "step"
            if b.stored < b.start:
                segments += self._pending(b)
                purpose = "store step" if b.clean else "prefill step"
            segments += self._window(b)
            purposes.append(purpose)
        return make_plan(rows, segments, purposes)

    def _pending(self, b: RowBounds) -> list[Segment]:
        """Segments that store keys and predict nothing: given blocks and clean ones.

        Given blocks that follow each other form one masked segment; every clean block is a segment
        of its own.
        """
        segments, at = [], b.stored
        for start, end in (*b.clean, (b.start, b.start)):
            if at < start:
                queries = span(at, start)
                ends = block_ends(queries, self.alignment)
                segments.append(Segment(b.row, 0, queries, ends, write=True, predict=NO_POSITIONS))
            segments += self._whole_blocks(b, start, end)
            at = end
        return segments

    def _whole_blocks(self, b: RowBounds, start: int, end: int) -> list[Segment]:
        """A span of filled positions, cut at the trained block borders."""
        cuts = range(start, end, self.alignment)
        return [
            Segment(
                b.row,
                0,
                span(cut, cut + self.alignment),
                cut + self.alignment,
                write=True,
                predict=NO_POSITIONS,
            )
            for cut in cuts
        ]

    def _window(self, b: RowBounds) -> list[Segment]:
        """The live blocks, and the query before them that a shifted family needs.

        Where they span several trained blocks, each query sees up to the end of its own block.
        """
        segments = window(b, b.end, ShiftInfo(self.shift, self.alignment))
        if b.end - b.start > self.alignment:
            segments[0] = segments[0]._replace(
                key_end=block_ends(segments[0].q_pos, self.alignment)
            )
        return segments
