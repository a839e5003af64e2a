"""`PageTable`: the owners of the pages of keys and values, counted on the host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from dlm.errors import EngineError, Unavailable


class PageTable:
    """Pages of `page_size` positions each, and the number of owners that every page has.

    Page 0 is the trash page: it belongs to nobody, is never free and may be named anywhere. A row
    reserves all pages that it may need at admission, so that it cannot starve its batch mates.

    Copies owed. A fork shares its parent's pages; an owner that writes a shared page gets a page
    of its own for it (`own`), and the last owner keeps the original. A page with n owners may thus
    cost n - 1 further pages, unless it is sealed: its keys are final and nobody writes it.
    `_owed` is the sum of these n - 1 over all unsealed pages. It never exceeds the number of free
    pages, as whoever reserves or shares provides for it first; so `own` always finds a page.
    `_count` alone changes numbers of owners and keeps the sum true; `seal` takes pages out of it.

    `limit`: the most pages that may ever exist (None: no bound), of which `count` exist now.
    `grow(n)` makes the storage hold n pages, or raises `Unavailable` and changes nothing.
    """

    def __init__(
        self,
        page_size: int,
        page_bytes: int,
        grow: Callable[[int], None],
        *,
        count: int = 1,
        limit: int | None = None,
    ) -> None:
        self.page_size, self.page_bytes = page_size, page_bytes
        self._grow, self._limit = grow, limit
        self._owners: list[int] = [1]
        self._free: list[int] = []
        self._sealed: set[int] = set()
        self._owed = 0
        self._extend(count)

    @property
    def in_use(self) -> int:
        """The number of pages that have an owner."""
        return len(self._owners) - 1 - len(self._free)

    @property
    def usage(self) -> float:
        """The share of the pages in use: of those that may be, or without a bound of those that
        are.
        """
        return self.in_use / max((self._limit or len(self._owners)) - 1, 1)

    @property
    def shared(self) -> bool:
        """True if some page would be copied before it is written."""
        return self._owed > 0

    def owners(self, page: int) -> int:
        """The number of rows, and others that keep it, that own a page."""
        return self._owners[page]

    def is_sealed(self, page: int) -> bool:
        """True if the keys of a page are final, so that nobody may write it."""
        return page in self._sealed

    def pages_for(self, positions: int) -> int:
        """The number of pages that hold `positions` positions."""
        return -(-positions // self.page_size)

    def fits(self, pages: int) -> bool:
        """True if a reservation of `pages` fits a table without rows."""
        return self._limit is None or pages < self._limit

    def reserve(self, pages: int) -> list[int]:
        """Take `pages` free pages. Raises `Unavailable`, and takes none, where there are too few.

        The storage grows where the limit allows it.
        """
        self._provide(pages)
        return [self._take() for _ in range(pages)]

    def share(self, pages: Sequence[int]) -> None:
        """Count one more owner of each page.

        Raises `Unavailable`, and counts none, where the copies that they may cost do not fit.
        """
        real = [page for page in pages if page != 0]
        self._provide(sum(page not in self._sealed for page in real))
        for page in real:
            self._count(page, +1)

    def seal(self, pages: Sequence[int]) -> None:
        """Declare the keys of `pages` final: nobody writes them until they are free again."""
        for page in set(pages) - self._sealed - {0}:
            self._owed -= self._owners[page] - 1
            self._sealed.add(page)

    def own(
        self, pages: Sequence[int], whole: Sequence[bool]
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """The same pages with fresh ones in place of shared ones, and the copies to make.

        `whole[i]`: all of page i is about to be written, so that its contents need no copy. A copy
        is (source, target); no source is the target of another one.
        """
        own, copies = [], []
        for page, rewritten in zip(pages, whole, strict=True):
            if page in self._sealed:
                raise EngineError(f"page {page} is sealed and must not be written")
            if page == 0 or self._owners[page] == 1:
                own.append(page)
                continue
            self._count(page, -1)
            own.append(self._take())
            if not rewritten:
                copies.append((page, own[-1]))
        return own, copies

    def release(self, pages: Sequence[int]) -> None:
        """Count one owner less of each page; a page without owners is free."""
        for page in (page for page in pages if page != 0):
            if self._owners[page] < 1:
                raise EngineError(f"page {page} was released more often than it was taken")
            self._count(page, -1)

    def check_integrity(self, owned: Sequence[Sequence[int]] = ()) -> None:
        """Raise `EngineError` unless free and used pages are disjoint, complete and counted.

        `owned`: the pages of every owner; where given, they must explain all numbers of owners.
        """
        idle = [page for page, count in enumerate(self._owners) if count == 0]
        shared = {page: n for page, n in enumerate(self._owners) if n > 1}
        owed = sum(n - 1 for page, n in shared.items() if page not in self._sealed)
        known = Counter(page for pages in owned for page in pages if page != 0)
        rules = {
            "the free pages are those without an owner, each once": sorted(self._free) == idle,
            "the copies owed are those of shared pages": self._owed == owed,
            "a page is free for each copy owed": owed <= len(self._free),
            "the given pages explain the numbers of owners": not owned
            or all(known[page] == n for page, n in enumerate(self._owners) if page != 0),
        }
        for rule, holds in rules.items():
            if not holds:
                raise EngineError(f"the page table is broken: it does not hold that {rule}")

    def _count(self, page: int, change: int) -> None:
        """Change the number of owners of a page by one."""
        before = self._owners[page]
        self._owners[page] = after = before + change
        if page not in self._sealed:
            self._owed += max(after - 1, 0) - max(before - 1, 0)
        if after == 0:
            self._sealed.discard(page)
            self._free.append(page)

    def _take(self) -> int:
        page = self._free.pop()
        self._count(page, +1)
        return page

    def _provide(self, pages: int) -> None:
        """See that `pages` pages are free beyond the copies owed. Raises `Unavailable`."""
        missing = pages + self._owed - len(self._free)
        if missing <= 0:
            return
        count = len(self._owners)
        wanted, limit = count + missing, self._limit
        if limit is not None and wanted > limit:
            raise Unavailable(
                f"the key/value pool is full: {missing} more pages of {self.page_bytes} bytes are "
                f"needed, {self.in_use + self._owed} of {limit - 1} are taken"
            )
        target = max(wanted, 2 * count)
        target = target if limit is None else min(target, limit)
        self._grow(target)
        self._extend(target)

    def _extend(self, count: int) -> None:
        """Let `count` pages exist, the lowest new one first to be taken."""
        new = range(len(self._owners), count)
        self._free.extend(reversed(new))
        self._owners.extend(0 for _ in new)
