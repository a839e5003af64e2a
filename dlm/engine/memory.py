"""The pages of rows: in the model's pool one table for each input, and one in each auxiliary pool.

A row's pages are a table `[C, P]`: its arms first, then the auxiliary models that its parts read,
in the order of their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from dlm.core import ForwardPlan, Parts
from dlm.errors import Unavailable
from dlm.model.kv import KVPool


class Memory:
    """Reserves, shares and frees the pages of whole rows."""

    def __init__(self, kv: KVPool, aux: Mapping[str, KVPool]) -> None:
        self.kv, self.aux = kv, aux

    def pools(self, parts: Parts) -> list[KVPool]:
        """The pool of each line of a row's page table."""
        return [self.kv] * parts.arms + [self.aux[name] for name in parts.aux]

    def fits_ever(self, parts: Parts, positions: int) -> bool:
        """Whether a row of `positions` positions fits empty pools."""
        counts = [(self.kv, parts.arms), *((self.aux[name], 1) for name in parts.aux)]
        return all(pool.fits_ever(lines * pool.pages_for(positions)) for pool, lines in counts)

    def reserve(self, parts: Parts, positions: int) -> Tensor:
        """A page table `[C, P]`. Raises `Unavailable`, and takes nothing, when one pool is full."""
        lines: list[list[int]] = []
        pools = self.pools(parts)
        try:
            for pool in pools:
                lines.append(pool.reserve(pool.pages_for(positions)))
        except Unavailable:
            for pool, pages in zip(pools, lines, strict=False):
                pool.release(pages)
            raise
        return torch.tensor(lines)

    def share(self, parts: Parts, pages: Tensor) -> None:
        """Count one more owner of a row's `pages [C, P]`. Raises `Unavailable`, all or nothing."""
        done: list[tuple[KVPool, list[int]]] = []
        try:
            for pool, line in self._lines(parts, pages):
                pool.share(line)
                done.append((pool, line))
        except Unavailable:
            for pool, line in done:
                pool.release(line)
            raise

    def release(self, parts: Parts, pages: Tensor) -> None:
        """Give a row's `pages [C, P]` back."""
        for pool, line in self._lines(parts, pages):
            pool.release(line)

    def _lines(self, parts: Parts, pages: Tensor) -> Iterator[tuple[KVPool, list[int]]]:
        return zip(self.pools(parts), pages.tolist(), strict=True)


def copy_on_write(kv: KVPool, plan: ForwardPlan) -> Tensor:
    """Give the plan's rows pages of their own where they write shared ones.

    Returns the page table `[R, C, P]`, which the rows must keep from now on: the pool has let go
    of the shared pages in it.
    """
    if not kv.shared:
        return plan.pages
    pages, size = plan.pages.clone(), kv.page_size
    for s in (s for s in plan.segments if s.write):
        column = torch.div(s.q_pos, size, rounding_mode="floor")
        column, counts = column.unique(return_counts=True)
        owned = kv.own(pages[s.row, s.arm, column].tolist(), (counts == size).tolist())
        pages[s.row, s.arm, column] = torch.tensor(owned)
    return pages
