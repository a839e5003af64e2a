"""The pages of rows: in the model's pool one table for each input, and one in each auxiliary pool.

A row's pages are a table `[C, P]`: its arms first, then the auxiliary models that its parts read,
in the order of their names.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlm.core import ForwardPlan, Parts, SharedPrefix
from dlm.errors import Unavailable
from dlm.model.kv import KVPool


class PageManager:
    """Reserves, shares and frees the pages of whole rows.

    `prefixes` keeps what prompts have in common (None: nothing is kept).
    """

    def __init__(
        self, kv: KVPool, aux: Mapping[str, KVPool], prefixes: PrefixCache | None = None
    ) -> None:
        self.kv, self.aux, self.prefixes = kv, aux, prefixes

    def pools(self, parts: Parts) -> list[KVPool]:
        """The pool of each line of a row's page table."""
        return [self.kv] * parts.arms + [self.aux[name] for name in parts.aux]

    def fits_ever(self, parts: Parts, positions: int) -> bool:
        """Whether a row of `positions` positions fits empty pools."""
        counts = [(self.kv, parts.arms), *((self.aux[name], 1) for name in parts.aux)]
        return all(
            pool.fits_ever(page_rows * pool.pages_for(positions)) for pool, page_rows in counts
        )

    def reserve(
        self, parts: Parts, positions: int, prompt: Sequence[int] = ()
    ) -> tuple[Tensor, int]:
        """A page table `[C, P]`, and how many leading positions of `prompt` have their keys in it.

        Raises `Unavailable`, and takes nothing, when one pool is full.
        """
        known: list[int] = []
        if self.prefixes is not None and (how := shared_prefix(parts)):
            known = self.prefixes.take(prompt, how)
        page_rows, pools = [known], self.pools(parts)
        try:
            for number, pool in enumerate(pools):
                there = len(known) if number == 0 else 0
                fresh = self._reserve(pool, pool.pages_for(positions) - there)
                page_rows[number:] = [(known if number == 0 else []) + fresh]
        except Unavailable:
            for pool, pages in zip(pools, page_rows, strict=False):
                pool.release(pages)
            raise
        return torch.tensor(page_rows), len(known) * self.kv.page_size

    def _reserve(self, pool: KVPool, pages: int) -> list[int]:
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
        done: list[tuple[KVPool, list[int]]] = []
        try:
            for pool, page_row in self._page_rows(parts, pages):
                pool.share(page_row)
                done.append((pool, page_row))
        except Unavailable:
            for pool, page_row in done:
                pool.release(page_row)
            raise

    def release(self, parts: Parts, pages: Tensor) -> None:
        """Give a row's `pages [C, P]` back."""
        for pool, page_row in self._page_rows(parts, pages):
            pool.release(page_row)

    def bytes_of(self, parts: Parts, pages: Tensor) -> int:
        """How much a row's `pages [C, P]` hold, those that it shares included."""
        page_rows = self._page_rows(parts, pages)
        return sum(
            pool.page_bytes * sum(page != 0 for page in page_row) for pool, page_row in page_rows
        )

    def _page_rows(self, parts: Parts, pages: Tensor) -> Iterator[tuple[KVPool, list[int]]]:
        return zip(self.pools(parts), pages.tolist(), strict=True)


def shared_prefix(parts: Parts) -> SharedPrefix | None:
    """What a row can share with others that begin alike: nothing, where it has several inputs."""
    return parts.cache.shared_prefix if parts.arms == 1 else None


def copy_on_write(kv: KVPool, plan: ForwardPlan) -> Tensor:
    """Give the plan's rows pages of their own where they write shared ones.

    Returns the page table `[R, C, P]`, which the rows must keep from now on: the pool has let go
    of the shared pages in it.
    """
    if not kv.shared:
        return plan.pages
    pages, size = plan.pages.clone(), kv.page_size
    for s in (s for s in plan.segments if s.write):
        column, counts = np.unique(s.q_pos // size, return_counts=True)
        own, whole = pages[s.row, s.arm], (counts == size).tolist()
        own[column] = torch.tensor(kv.own(own[column].tolist(), whole))
    return pages


START = b""


"""The parent of the first unit."""


@dataclass(slots=True)
class Entry:
    """Pages of one unit of positions, and how many longer prefixes go on from it."""

    pages: tuple[int, ...]
    parent: bytes
    children: int = 0


class PrefixCache:
    """Pages of computed prefixes, by the hash of all ids up to their end.

    Kept in units of whole pages that depend on nothing behind them; the store owns its pages beside
    the rows that use them. `max_bytes` bounds what it keeps: the longest unused ends go first.
    """

    def __init__(self, pool: KVPool, max_bytes: int) -> None:
        self.pool, self.most = pool, max_bytes // pool.page_bytes
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()

    @property
    def pages(self) -> list[int]:
        """All pages that the store owns."""
        return [page for entry in self._entries.values() for page in entry.pages]

    def take(self, ids: Sequence[int], how: SharedPrefix) -> list[int]:
        """Pages of the longest known prefix of `ids`, now also the caller's."""
        known = []
        for key, _, _ in self._units(ids, how):
            if key not in self._entries:
                break
            known.append(key)
        for key in reversed(known):
            self._entries.move_to_end(key)  # the beginning is the last to go
        pages = [page for key in known for page in self._entries[key].pages]
        self.pool.share(pages)
        return pages

    def keep(self, ids: Sequence[int], pages: Sequence[int], how: SharedPrefix) -> None:
        """Keep the whole units of `ids`, whose final keys are in `pages`."""
        for key, parent, place in self._units(ids, how):
            if key in self._entries:
                continue
            own = tuple(pages[place])
            while len(self.pages) + len(own) > self.most:
                if not self._drop(keeping=parent):
                    return
            self.pool.seal(own)
            self.pool.share(own)
            self._entries[key] = Entry(own, parent)
            if parent != START:
                self._entries[parent].children += 1

    def give_back(self) -> bool:
        """Free some pages that nobody but the store uses. Whether there were any."""
        return self._drop(idle=True)

    def clear(self) -> None:
        """Give all pages back."""
        for entry in self._entries.values():
            self.pool.release(entry.pages)
        self._entries.clear()

    def _drop(self, keeping: bytes = START, *, idle: bool = False) -> bool:
        """Forget the end that has been unused for longest; `idle`: of those that no row uses."""
        for key, entry in self._entries.items():
            used = idle and any(self.pool.owners(page) > 1 for page in entry.pages)
            if entry.children or used or key == keeping:
                continue
            self.pool.release(entry.pages)
            del self._entries[key]
            if entry.parent != START:
                self._entries[entry.parent].children -= 1
            return True
        return False

    def _units(self, ids: Sequence[int], how: SharedPrefix) -> Iterator[tuple[bytes, bytes, slice]]:
        """Every whole unit: its key, the key of the prefix before it, its columns of pages."""
        size = self.pool.page_size
        unit = len(ids) if how.unit is None else math.lcm(size, how.unit)
        parent = START
        for start in range(0, len(ids) - unit + 1, max(unit, 1)):
            own = b"".join(i.to_bytes(8, "little") for i in ids[start : start + unit])
            key = hashlib.sha256(how.name.encode() + b"\0" + parent + own).digest()
            columns = slice(start // size, (start + unit) // size)
            if columns.start == columns.stop:
                return
            yield key, parent, columns
            parent = key
