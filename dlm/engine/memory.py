"""The pages of rows: in the model's pool one table for each input, and one in each auxiliary pool.

A row's pages are a table `[C, P]`: its arms first, then the auxiliary models that its parts read,
in the order of their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dlm.core import ForwardPlan, Parts, SharedPrefix
from dlm.engine.prefixes import PrefixStore
from dlm.errors import Unavailable
from dlm.model.kv_store import KVPool
from dlm.model.pages import PageTable


class Memory:
    """Reserves, shares and frees the pages of whole rows.

    `prefixes` keeps what prompts have in common (None: nothing is kept).
    """

    def __init__(
        self, kv: PageTable, aux: Mapping[str, PageTable], prefixes: PrefixStore | None = None
    ) -> None:
        self.kv, self.aux, self.prefixes = kv, aux, prefixes

    def pools(self, parts: Parts) -> list[PageTable]:
        """The pool of each line of a row's page table."""
        return [self.kv] * parts.arms + [self.aux[name] for name in parts.aux]

    def fits_ever(self, parts: Parts, positions: int) -> bool:
        """Whether a row of `positions` positions fits empty pools."""
        counts = [(self.kv, parts.arms), *((self.aux[name], 1) for name in parts.aux)]
        return all(pool.fits(lines * pool.pages_for(positions)) for pool, lines in counts)

    def reserve(
        self, parts: Parts, positions: int, prompt: Sequence[int] = ()
    ) -> tuple[Tensor, int]:
        """A page table `[C, P]`, and how many leading positions of `prompt` have their keys in it.

        Raises `Unavailable`, and takes nothing, when one pool is full.
        """
        known: list[int] = []
        if self.prefixes is not None and (how := shared_prefix(parts)):
            known = self.prefixes.take(prompt, how)
        lines, pools = [known], self.pools(parts)
        try:
            for number, pool in enumerate(pools):
                there = len(known) if number == 0 else 0
                fresh = self._reserve(pool, pool.pages_for(positions) - there)
                lines[number:] = [(known if number == 0 else []) + fresh]
        except Unavailable:
            for pool, pages in zip(pools, lines, strict=False):
                pool.release(pages)
            raise
        return torch.tensor(lines), len(known) * self.kv.page_size

    def _reserve(self, pool: PageTable, pages: int) -> list[int]:
        """Free pages; where there are too few, kept prefixes make room."""
        while True:
            try:
                return pool.reserve(pages)
            except Unavailable:
                if pool is not self.kv or self.prefixes is None or not self.prefixes.give_back():
                    raise

    def keep(self, parts: Parts, ids: Sequence[int], prompt: int, pages: Tensor) -> None:
        """Keep the prefix `ids` of a row on `pages [C, P]`, whose keys are final.

        `prompt`: how many of the ids are the prompt's.
        """
        if self.prefixes is not None and (how := shared_prefix(parts)):
            own = ids[:prompt] if how.prompt_only else ids
            self.prefixes.keep(own, pages[0].tolist(), how)

    def share(self, parts: Parts, pages: Tensor) -> None:
        """Count one more owner of a row's `pages [C, P]`. Raises `Unavailable`, all or nothing."""
        done: list[tuple[PageTable, list[int]]] = []
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

    def bytes_of(self, parts: Parts, pages: Tensor) -> int:
        """How much a row's `pages [C, P]` hold, those that it shares included."""
        lines = self._lines(parts, pages)
        return sum(pool.page_bytes * sum(page != 0 for page in line) for pool, line in lines)

    def _lines(self, parts: Parts, pages: Tensor) -> Iterator[tuple[PageTable, list[int]]]:
        return zip(self.pools(parts), pages.tolist(), strict=True)


def shared_prefix(parts: Parts) -> SharedPrefix | None:
    """What a row can share with others that begin alike: nothing, where it has several inputs."""
    return parts.cache.shared_prefix if parts.arms == 1 else None


def copy_on_write(kv: KVPool, plan: ForwardPlan) -> Tensor:
    """Give the plan's rows pages of their own where they write shared ones.

    Returns the page table `[R, C, P]`, which the rows must keep from now on: the pool has let go
    of the shared pages in it.
    """
    if not kv.pages.shared:
        return plan.pages
    pages, size = plan.pages.clone(), kv.pages.page_size
    copies: list[tuple[int, int]] = []
    for s in (s for s in plan.segments if s.write):
        column, counts = np.unique(s.q_pos // size, return_counts=True)
        own, whole = pages[s.row, s.arm], (counts == size).tolist()
        fresh, made = kv.pages.own(own[column].tolist(), whole)
        own[column] = torch.tensor(fresh)
        copies += made
    kv.store.copy(copies)
    return pages
