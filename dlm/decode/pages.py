"""Page tables of rows, and the pages of prompts that are kept for later requests.

The table of a row is `[C, P]`: one page row for each of its arms, then one for each auxiliary model
that its parts read, in the order of their names. An arm's pages come from the model's pool, those
of an auxiliary model from its own.
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
from dlm.model.kv_store import KVPool
from dlm.model.pages import PageTable


class PageManager:
    """Reserve, share and free the pages of whole rows.

    kv: the model's pool
    aux: pools of auxiliary models by name
    prefixes: pages of computed prompts that are kept (None: none are)
    """

    def __init__(
        self, kv: PageTable, aux: Mapping[str, PageTable], prefixes: PrefixCache | None = None
    ) -> None:
        self.kv, self.aux, self.prefixes = kv, aux, prefixes

    def pools(self, parts: Parts) -> list[PageTable]:
        """The pool of each page row of a row's table."""
        return [self.kv] * parts.arms + [self.aux[name] for name in parts.aux]

    def fits_ever(self, parts: Parts, positions: int) -> bool:
        """True if a row of `positions` positions fits empty pools."""
        counts = [(self.kv, parts.arms), *((self.aux[name], 1) for name in parts.aux)]
        return all(pool.fits(page_rows * pool.pages_for(positions)) for pool, page_rows in counts)

    def reserve(
        self, parts: Parts, positions: int, prompt: Sequence[int] = ()
    ) -> tuple[Tensor, int]:
        """Take a page table `[C, P]`, and count the leading positions of `prompt` with keys in it.

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

    def _reserve(self, pool: PageTable, pages: int) -> list[int]:
        """Take free pages; kept prefixes make room where there are too few."""
        while True:
            try:
                return pool.reserve(pages)
            except Unavailable:
                if pool is not self.kv or self.prefixes is None or not self.prefixes.give_back():
                    raise

    def keep(self, parts: Parts, ids: Sequence[int], prompt: int, pages: Tensor) -> None:
        """Keep the prefix `ids` of a row on `pages [C, P]`, whose keys are final.

        `prompt`: the number of ids that are the prompt's.
        """
        if self.prefixes is not None and (how := shared_prefix(parts)):
            own = ids[:prompt] if how.prompt_only else ids
            self.prefixes.keep(own, pages[0].tolist(), how)

    def share(self, parts: Parts, pages: Tensor) -> None:
        """Count one more owner of a row's `pages [C, P]`. Raises `Unavailable`, all or nothing."""
        done: list[tuple[PageTable, list[int]]] = []
        try:
            for pool, page_row in self._page_rows(parts, pages):
                pool.share(page_row)
                done.append((pool, page_row))
        except Unavailable:
            for pool, page_row in done:
                pool.release(page_row)
            raise

    def unsealed(
        self, parts: Parts, pages: Tensor, position: int
    ) -> tuple[Tensor, list[tuple[int, int]]]:
        """A row's `pages [C, P]` with fresh ones where sealed ones hold `position` or later ones.

        Returns the copies to make, too: of the page that keys before `position` share. Raises
        `Unavailable`, and changes nothing, where the pool is full.
        """
        size, own = self.kv.page_size, pages.clone()
        line = own[0].tolist()  # other lines hold nothing that is kept
        columns = [i for i in range(position // size, len(line)) if self.kv.is_sealed(line[i])]
        fresh = self._reserve(self.kv, len(columns))
        own[0, columns] = torch.tensor(fresh, dtype=torch.long)
        self.kv.release([line[i] for i in columns])
        partial = position // size if position % size else None
        copies = [(line[i], new) for i, new in zip(columns, fresh, strict=True) if i == partial]
        return own, copies

    def release(self, parts: Parts, pages: Tensor) -> None:
        """Give a row's `pages [C, P]` back."""
        for pool, page_row in self._page_rows(parts, pages):
            pool.release(page_row)

    def bytes_of(self, parts: Parts, pages: Tensor) -> int:
        """The size of a row's `pages [C, P]`, shared ones included."""
        page_rows = self._page_rows(parts, pages)
        return sum(
            pool.page_bytes * sum(page != 0 for page in page_row) for pool, page_row in page_rows
        )

    def _page_rows(self, parts: Parts, pages: Tensor) -> Iterator[tuple[PageTable, list[int]]]:
        return zip(self.pools(parts), pages.tolist(), strict=True)


def shared_prefix(parts: Parts) -> SharedPrefix | None:
    """The keys that a row shares with rows that begin alike; None where it has several arms."""
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


START = b""
"""The parent of the first unit."""


@dataclass(slots=True)
class Entry:
    """Pages of one unit of positions.

    pages: in the model's pool
    parent: key of the unit before it
    children: number of kept units that follow it
    """

    pages: tuple[int, ...]
    parent: bytes
    children: int = 0


class PrefixCache:
    """Pages of computed prefixes, by the hash of all ids up to their end.

    Prefixes are kept in units of whole pages whose keys depend on no later position. The cache owns
    its pages beside the rows that use them. `max_bytes` bounds their size: of the units that no
    other one follows, the one unused for longest goes first.
    """

    def __init__(self, pool: PageTable, max_bytes: int) -> None:
        self.pool, self.most = pool, max_bytes // pool.page_bytes
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._held = 0  # pages

    @property
    def pages(self) -> list[int]:
        """All pages that the cache owns."""
        return [page for entry in self._entries.values() for page in entry.pages]

    def take(self, ids: Sequence[int], how: SharedPrefix) -> list[int]:
        """Share the pages of the longest known prefix of `ids` with the caller."""
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
            while self._held + len(own) > self.most:
                if not self._drop(keeping=parent):
                    return
            self.pool.seal(own)
            self.pool.share(own)
            self._entries[key] = Entry(own, parent)
            self._held += len(own)
            if parent != START:
                self._entries[parent].children += 1

    def give_back(self) -> bool:
        """Free a unit that no row uses; False if there is none."""
        return self._drop(idle=True)

    def clear(self) -> None:
        """Give all pages back."""
        for entry in self._entries.values():
            self.pool.release(entry.pages)
        self._entries.clear()
        self._held = 0

    def _drop(self, keeping: bytes = START, *, idle: bool = False) -> bool:
        """Forget the last unit of a prefix that was unused for longest; False if there is none.

        `keeping`: the unit that must stay. `idle`: only a unit whose pages no row uses.
        """
        for key, entry in self._entries.items():
            used = idle and any(self.pool.owners(page) > 1 for page in entry.pages)
            if entry.children or used or key == keeping:
                continue
            self.pool.release(entry.pages)
            del self._entries[key]
            self._held -= len(entry.pages)
            if entry.parent != START:
                self._entries[entry.parent].children -= 1
            return True
        return False

    def _units(self, ids: Sequence[int], how: SharedPrefix) -> Iterator[tuple[bytes, bytes, slice]]:
        """The key of every whole unit of `ids`, the key of the unit before it, its page columns."""
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
