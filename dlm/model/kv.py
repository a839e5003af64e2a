"""`KVPool`: pages of post-RoPE keys and values.

A page holds `page_size` consecutive positions of one arm of one row, for all layers. Keys are
stored rotated, with explicit positions, so any scattered set of positions can be refreshed. Page 0
is a trash page that belongs to nobody. The pool grows by doubling up to its budget; what a row may
need is reserved at admission, so that no request can starve its batch mates later.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlm.errors import EngineError, Unavailable
from dlm.model.spec import ModelSpec

PAGE_SIZE = 16


class KVPool:
    """Keys and values of all rows, in pages.

    `storage [layers, slots, 2, Hkv, Dh]`; a slot is `page * page_size + offset`. `max_bytes` bounds
    the storage (None: no bound). Raises `Unavailable` when a reservation does not fit now.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        device: torch.device,
        dtype: torch.dtype,
        max_bytes: int | None = None,
        page_size: int = PAGE_SIZE,
    ) -> None:
        self.page_size, self.angles_by_length = page_size, spec.angles_by_length
        self._shape = (spec.layers, 2, spec.kv_heads, spec.head_dim)
        self._page_bytes = (
            spec.kv_bytes_per_token(torch.empty(0, dtype=dtype).element_size()) * page_size
        )
        self._max_pages = None if max_bytes is None else max_bytes // self._page_bytes
        self._storage = self._empty(1, device, dtype)
        self._references: list[int] = [1]
        self._free: list[int] = []
        self._sealed: set[int] = set()
        self._owed = 0  # copies that owners of shared pages may still need

    def _empty(self, pages: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        layers, two, heads, dim = self._shape
        return torch.zeros(
            layers, pages * self.page_size, two, heads, dim, device=device, dtype=dtype
        )

    @property
    def pages(self) -> int:
        """Pages that exist, the trash page included."""
        return len(self._references)

    @property
    def pages_in_use(self) -> int:
        """Pages that belong to rows."""
        return self.pages - 1 - len(self._free)

    @property
    def shared(self) -> bool:
        """Whether some page has more than one owner."""
        return self._owed > 0

    @property
    def storage(self) -> Tensor:
        """The keys and values that there are; another tensor once the pool has grown."""
        return self._storage

    @property
    def bytes(self) -> int:
        """Size of the storage."""
        return self._storage.numel() * self._storage.element_size()

    @property
    def page_bytes(self) -> int:
        """Size of a page."""
        return self._page_bytes

    def owners(self, page: int) -> int:
        """How many rows, and others that keep it, own a page."""
        return self._references[page]

    def pages_for(self, positions: int) -> int:
        """How many pages hold `positions` positions."""
        return -(-positions // self.page_size)

    def fits_ever(self, pages: int) -> bool:
        """Whether a reservation of `pages` fits an empty pool."""
        return self._max_pages is None or pages < self._max_pages

    def reserve(self, pages: int) -> list[int]:
        """Take `pages` free pages, growing the storage where the budget allows.

        Raises `Unavailable` with the numbers when it does not.
        """
        self._provide(pages)
        taken = [self._free.pop() for _ in range(pages)]
        for page in taken:
            self._references[page] = 1
        return taken

    def share(self, pages: Sequence[int]) -> None:
        """Count one more owner of each page (a fork). Whoever writes first gets a copy.

        The copies are provided for now, so that a fork cannot run out of pages later; raises
        `Unavailable` when the budget does not allow them. Sealed pages need none.
        """
        real = [page for page in pages if page != 0]
        copies = sum(page not in self._sealed for page in real)
        self._provide(copies)
        for page in real:
            self._references[page] += 1
        self._owed += copies

    def seal(self, pages: Sequence[int]) -> None:
        """The pages hold final keys: nobody will write them until they are free again."""
        for page in set(pages) - self._sealed - {0}:
            self._owed -= self._references[page] - 1
            self._sealed.add(page)

    def own(self, pages: Sequence[int], whole: Sequence[bool]) -> list[int]:
        """The same pages, none of them shared: copies take the place of those that were.

        `whole[i]`: all of page i is about to be written, so that its contents need no copy.
        """
        return [self._own(page, rewritten) for page, rewritten in zip(pages, whole, strict=True)]

    def _own(self, page: int, rewritten: bool) -> int:
        if page in self._sealed:
            raise EngineError(f"page {page} is sealed and must not be written")
        if page == 0 or self._references[page] == 1:
            return page
        self._references[page] -= 1
        self._owed -= 1
        copy = self._free.pop()
        self._references[copy] = 1
        if not rewritten:
            source, target = (
                slice(p * self.page_size, (p + 1) * self.page_size) for p in (page, copy)
            )
            self._storage[:, target] = self._storage[:, source]
        return copy

    def _provide(self, pages: int) -> None:
        """See that `pages` pages are free beyond those owed to forks."""
        missing = pages + self._owed - len(self._free)
        if missing <= 0:
            return
        wanted = self.pages + missing
        if self._max_pages is not None and wanted > self._max_pages:
            raise Unavailable(
                f"the key/value pool is full: {missing} more pages of {self._page_bytes} bytes are "
                f"needed, {self.pages_in_use + self._owed} of {self._max_pages} are taken"
            )
        target = max(wanted, 2 * self.pages)
        target = target if self._max_pages is None else min(target, self._max_pages)
        self._grow(target)
        self._free.extend(range(target - 1, self.pages - 1, -1))
        self._references.extend([0] * (target - self.pages))

    def _grow(self, pages: int) -> None:
        """Make the storage hold `pages` pages. Raises `Unavailable` when the device has no room."""
        try:
            more = self._empty(pages - self.pages, self._storage.device, self._storage.dtype)
            self._storage = torch.cat((self._storage, more), dim=1)
        except (RuntimeError, MemoryError) as error:  # torch's out-of-memory errors are of these
            raise Unavailable(
                f"the device has no memory for {pages} pages of keys and values, "
                f"{self._page_bytes} bytes each ({self.pages} are there)"
            ) from error

    def release(self, pages: Sequence[int]) -> None:
        """Give pages back; a page is free when its last owner left. The trash page is ignored."""
        for page in pages:
            if page == 0:
                continue
            if self._references[page] < 1:
                raise EngineError(f"page {page} was released more often than it was taken")
            self._references[page] -= 1
            if self._references[page] == 0:
                self._free.append(page)
                self._sealed.discard(page)
            elif page not in self._sealed:
                self._owed -= 1

    def check_integrity(self, owned: Sequence[Sequence[int]] = ()) -> None:
        """Raise `EngineError` unless free and used pages are disjoint, complete and counted.

        `owned`: the pages of every live row; when given, their counts must explain all references.
        """
        if len(set(self._free)) != len(self._free) or 0 in self._free:
            raise EngineError("the free list holds a page twice, or the trash page")
        idle = {page for page, count in enumerate(self._references) if count == 0}
        if idle != set(self._free):
            raise EngineError(
                f"pages without owner that are not free: {sorted(idle ^ set(self._free))[:8]}"
            )
        writable = (n for page, n in enumerate(self._references) if page not in self._sealed)
        if self._owed != sum(max(0, count - 1) for count in writable):
            raise EngineError(f"{self._owed} copies are owed, which the reference counts deny")
        if self._owed > len(self._free):
            raise EngineError(f"{self._owed} copies are owed, {len(self._free)} pages are free")
        counts = [0] * self.pages
        for pages in owned:
            for page in pages:
                counts[page] += page != 0
        if owned and counts[1:] != self._references[1:]:
            raise EngineError("the rows' pages do not explain the reference counts")

    def slots(self, pages: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slots `[...]` of `positions [...]` in the arm whose pages are `pages [P]`."""
        page, offset = np.divmod(positions, self.page_size)
        slots: NDArray[np.int64] = pages[page] * self.page_size + offset
        return slots

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store rotated `keys`, `values` `[T, Hkv, Dh]` of one layer at `slots [T]`."""
        plane = self._storage[layer]
        plane[:, 0].index_copy_(0, slots, keys)
        plane[:, 1].index_copy_(0, slots, values)

    def read(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values `[..., Hkv, Dh]` of one layer at `slots [...]`."""
        found = self._storage[layer].index_select(0, slots.reshape(-1)).unflatten(0, slots.shape)
        keys, values = found.unbind(-3)
        return keys, values
