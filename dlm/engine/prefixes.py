"""Keys of what requests have in common, computed once.

In block-causal models the keys of a position depend on nothing behind its trained block; elsewhere
a policy may make a prompt's keys alone. A request that begins as an earlier one did takes over its
pages; whoever comes first has computed them.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dlm.core import SharedPrefix
from dlm.model.pages import PageTable

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

    Kept in units of whole pages that depend on nothing behind them; the store owns its pages beside
    the rows that use them. `max_bytes` bounds what it keeps: the longest unused ends go first.
    """

    def __init__(self, pool: PageTable, max_bytes: int) -> None:
        self.pool, self.most = pool, max_bytes // pool.page_bytes
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._held = 0  # pages

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
        """Free some pages that nobody but the store uses. Whether there were any."""
        return self._drop(idle=True)

    def clear(self) -> None:
        """Give all pages back."""
        for entry in self._entries.values():
            self.pool.release(entry.pages)
        self._entries.clear()
        self._held = 0

    def _drop(self, keeping: bytes = START, *, idle: bool = False) -> bool:
        """Forget the end that has been unused for longest; `idle`: of those that no row uses."""
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
