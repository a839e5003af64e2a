"""Keys of what requests have in common: computed once where they never change.

In block-causal models the keys of a position depend on nothing behind its trained block. A request
that begins as an earlier one did takes over its pages; whoever comes first has computed them.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dlm.model.kv import KVPool

START = b""
"""The parent of the first unit."""


@dataclass(slots=True)
class Entry:
    """Pages of one unit of positions, and how many longer prefixes go on from it."""

    pages: tuple[int, ...]
    parent: bytes
    children: int = 0


class PrefixStore:
    """Pages of computed prefixes, by the hash of all ids up to their end.

    Kept in units that are whole pages and whole trained blocks; the store owns its pages beside the
    rows that use them. `max_bytes` bounds what it keeps: the longest unused ends go first.
    """

    def __init__(self, pool: KVPool, alignment: int, max_bytes: int) -> None:
        self.pool, self.unit = pool, math.lcm(pool.page_size, alignment)
        self.most = max_bytes // pool.page_bytes
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()

    @property
    def pages(self) -> list[int]:
        """All pages that the store owns."""
        return [page for entry in self._entries.values() for page in entry.pages]

    def take(self, ids: Sequence[int]) -> list[int]:
        """Pages of the longest known prefix of `ids`, now also the caller's."""
        known = [key for key, _ in self._known(ids)]
        for key in reversed(known):
            self._entries.move_to_end(key)  # the beginning is the last to go
        pages = [page for key in known for page in self._entries[key].pages]
        self.pool.share(pages)
        return pages

    def keep(self, ids: Sequence[int], pages: Sequence[int]) -> None:
        """Keep the whole units of `ids`, whose final keys are in `pages`."""
        each = self.unit // self.pool.page_size
        chain = list(self._chain(ids))
        for number, (key, parent) in enumerate(chain):
            if key in self._entries:
                continue
            if len(self._entries) * each + each > self.most and not self._drop(keeping=parent):
                return
            own = tuple(pages[number * each : (number + 1) * each])
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

    def _known(self, ids: Sequence[int]) -> Iterator[tuple[bytes, bytes]]:
        for key, parent in self._chain(ids):
            if key not in self._entries:
                return
            yield key, parent

    def _chain(self, ids: Sequence[int]) -> Iterator[tuple[bytes, bytes]]:
        """(key, key of the prefix before it) of every whole unit."""
        parent = START
        for start in range(0, len(ids) - self.unit + 1, self.unit):
            own = b"".join(i.to_bytes(8, "little") for i in ids[start : start + self.unit])
            key = hashlib.sha256(parent + own).digest()
            yield key, parent
            parent = key
