"""`Packed`: the flat tensors of one model call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class AttentionGroup(NamedTuple):
    """G runs of queries of equal shape, adjacent in the packed queries `start:end`.

    `key_slots [G, K]`: the stored keys that each run reads; `mask [q, K]`: which of them each query
    sees (None: all). `own`: the run also reads the keys of its own queries, which are not stored;
    `mask` is then `[q, K + q]`.
    """

    start: int
    end: int
    key_slots: Tensor
    mask: Tensor | None
    own: bool


class RaggedGroup(NamedTuple):
    """G unmasked runs of queries of any shapes, adjacent in the packed queries `start:end`.

    `key_slots [K]`: the stored keys that the runs read, one run after the other; `query_cuts`,
    `key_cuts` `[G + 1]` int32: where the runs begin and end among the group's queries and keys;
    `most_queries`, `most_keys`: the longest run.
    """

    start: int
    end: int
    key_slots: Tensor
    query_cuts: Tensor
    key_cuts: Tensor
    most_queries: int
    most_keys: int


class Packed(NamedTuple):
    """Flat inputs of one model call over T queries, N logit rows.

    `ids`, `positions` `[T]`; the first `len(write_slots)` queries store their keys there;
    `logit_rows [N]` index the queries: plan by plan, arm by arm, first the predicted positions,
    then the shadow tokens, `sizes` of them for each plan. `source [T]` finds each id in the
    concatenated, flattened canvases of the plans; `fixed [T]` overrides it where it is not
    negative. `lengths [T]`: the length of each query's canvas, for models whose angles depend on
    it.
    """

    ids: Tensor
    positions: Tensor
    write_slots: Tensor
    groups: tuple[AttentionGroup | RaggedGroup, ...]
    logit_rows: Tensor
    source: Tensor
    fixed: Tensor | None
    sizes: tuple[int, ...]
    lengths: Tensor | None = None

    def read(self, canvases: Sequence[Tensor]) -> Packed:
        """The same geometry with the ids that the canvases `[R, L]` hold now."""
        ids = torch.cat([c.reshape(-1) for c in canvases]).index_select(0, self.source)
        return self._replace(
            ids=ids if self.fixed is None else torch.where(self.fixed >= 0, self.fixed, ids)
        )
