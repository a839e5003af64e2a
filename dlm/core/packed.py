"""`Packed`: the flat tensors of one model call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class AttentionGroup(NamedTuple):
    """G runs of queries of equal shape, adjacent in the packed queries `start:end`.

    key_slots: the stored keys that each run reads, `[G, K]`.
    mask: the keys among them that each query sees (None: all), `[q, K]`; with `own`
        `[q, K + q]`.
    own: the run also reads the keys of its own queries, which are not stored.
    """

    start: int
    end: int
    key_slots: Tensor
    mask: Tensor | None
    own: bool


class RaggedGroup(NamedTuple):
    """G unmasked runs of queries of any shapes, adjacent in the packed queries `start:end`.

    key_slots: the stored keys that the runs read, one run after the other, `[K]`.
    query_cuts, key_cuts: bounds of the runs among the group's queries and keys, `[G + 1]` int32.
    most_queries, most_keys: size of the longest run.
    """

    start: int
    end: int
    key_slots: Tensor
    query_cuts: Tensor
    key_cuts: Tensor
    most_queries: int
    most_keys: int


class Shared(NamedTuple):
    """The results of a call that rows with the same input share.

    logit_rows: of each row of logits, its place among those that are computed, `[N]`.
    source, target: slots whose keys are computed, and those that take a copy of them, `[S]`.
    """

    logit_rows: Tensor
    source: Tensor
    target: Tensor


class Packed(NamedTuple):
    """Flat inputs of one model call over T queries, N logit rows.

    ids, positions: of the queries, `[T]`.
    write_slots: the slots in which the first queries, as many as there are slots, store their keys.
    groups: runs of queries that one attention call serves.
    logit_rows: the query of each row of logits that is computed, `[N]`: plan by plan, arm by arm,
        first the predicted positions, then the shadow tokens.
    source: place of each id in the flattened canvases of the plans, one after the other, `[T]`.
    fixed: ids that override it where they are not negative, `[T]`.
    branch: tokens of the row's draft that are filled in where a query reads its id, `[T]` (None:
        nowhere any).
    sizes: rows of logits of each plan, those that are shared included.
    lengths: length of each query's canvas, for models whose angles depend on it, `[T]`.
    shared: the results that are copied after the call (None: each row has its own).
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
    shared: Shared | None = None
    branch: Tensor | None = None

    def read(
        self, canvases: Sequence[Tensor], drafts: Sequence[tuple[Tensor, Tensor] | None] = ()
    ) -> Packed:
        """The same geometry with the ids that the canvases `[R, L]` hold now, and the `drafts` of
        their rows where a query reads a branch.
        """
        ids = _flat(canvases).take(self.source)
        if self.branch is not None:
            pairs = zip(canvases, drafts, strict=True)
            filled = [(torch.zeros_like(c),) * 2 if d is None else d for c, d in pairs]
            token, order = (_flat(part).take(self.source) for part in zip(*filled, strict=True))
            ids = torch.where((order > 0) & (order <= self.branch), token, ids)
        return self._replace(
            ids=ids if self.fixed is None else torch.where(self.fixed >= 0, self.fixed, ids)
        )


def _flat(parts: Sequence[Tensor]) -> Tensor:
    """All parts `[R, L]`, one after the other."""
    one, *others = parts
    return torch.cat([part.view(-1) for part in parts]) if others else one
