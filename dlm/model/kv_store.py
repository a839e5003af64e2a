"""`KVStore`: post-RoPE keys and values on a device, in pages; `KVPool`: the store and its owners.

A page holds `page_size` consecutive positions of one arm of one row, for all layers. Keys are
stored rotated, with explicit positions, so any scattered set of positions can be refreshed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlm.errors import InvalidRequest, Unavailable
from dlm.model.pages import PageTable
from dlm.model.spec import ModelSpec

PAGE_SIZE: Final = 16
FREE_SHARE: Final = 0.5
"""The part of free CUDA memory that a pool without a budget takes; forwards need the rest."""
MOST_POSITIONS: Final = 2**20
"""The most positions for which a pool without a budget takes memory: small models need no more."""


class KVStore:
    """Keys and values of `spec.kv_heads` heads, in pages: all heads of a model, or a shard's.

    `storage [layers, slots, 2, Hkv, Dh]`; a slot is `page * page_size + offset`. A fixed store is
    allocated whole and never moves, so that captured graphs and other processes may hold its
    address. One that is not fixed grows, and `storage` is then another tensor: read it here anew.
    Raises `Unavailable` when the device has no memory for `pages` pages.
    """

    def __init__(
        self,
        spec: ModelSpec,
        pages: int,
        page_size: int = PAGE_SIZE,
        *,
        device: torch.device,
        dtype: torch.dtype,
        fixed: bool = False,
    ) -> None:
        self.page_size, self.angles_by_length = page_size, spec.angles_by_length
        self.fixed, self.page_bytes = fixed, page_size * spec.kv_bytes_per_token(dtype.itemsize)
        shape = (spec.layers, 0, 2, spec.kv_heads, spec.head_dim)
        self.storage = torch.empty(shape, device=device, dtype=dtype)
        self._enlarge(pages)

    def grow(self, pages: int) -> None:
        """Make the storage hold `pages` pages.

        Raises `Unavailable`, and changes nothing, where it is fixed or the device has no room.
        """
        if self.fixed:
            there = self.storage.nbytes // self.page_bytes
            raise Unavailable(f"the key/value storage is fixed at {there} pages, not {pages}")
        self._enlarge(pages)

    def copy(self, pages: Sequence[tuple[int, int]]) -> None:
        """Copy whole pages, given as (source, target), in one operation."""
        if pages:
            source, target = torch.tensor(pages, device=self.storage.device).T.contiguous()
            paged = self.storage.unflatten(1, (-1, self.page_size))
            paged.index_copy_(1, target, paged.index_select(1, source))

    def copy_slots(self, source: Tensor, target: Tensor) -> None:
        """Copy the keys and values of all layers from slots `source [T]` to `target [T]`."""
        self.storage.index_copy_(1, target, self.storage.index_select(1, source))

    def slots(self, pages: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slots `[...]` of `positions [...]` in the arm whose pages are `pages [P]`."""
        page, offset = np.divmod(positions, self.page_size)
        slots: NDArray[np.int64] = pages[page] * self.page_size + offset
        return slots

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store rotated `keys`, `values` `[T, Hkv, Dh]` of one layer at `slots [T]`."""
        plane = self.storage[layer]
        plane[:, 0].index_copy_(0, slots, keys)
        plane[:, 1].index_copy_(0, slots, values)

    def read(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values `[..., Hkv, Dh]` of one layer at `slots [...]`."""
        found = self.storage[layer].index_select(0, slots.reshape(-1)).unflatten(0, slots.shape)
        keys, values = found.unbind(-3)
        return keys, values

    def _enlarge(self, pages: int) -> None:
        """Zeros for new pages (what is never written must still be finite) after the old ones."""
        layers, slots, *rest = self.storage.shape
        shape = layers, pages * self.page_size - slots, *rest
        try:
            new = torch.zeros(shape, device=self.storage.device, dtype=self.storage.dtype)
            self.storage = torch.cat((self.storage, new), dim=1) if slots else new
        except (RuntimeError, MemoryError) as error:  # torch's out-of-memory errors are of these
            raise Unavailable(
                f"the device has no memory for {pages} pages of keys and values, "
                f"{self.page_bytes} bytes each ({slots // self.page_size} are there)"
            ) from error


class KVPool:
    """The keys and values of one model: `pages` counts owners on the host, `store` holds tensors.

    `max_bytes` bounds the storage. With `fixed` all of it is allocated at once and never moves;
    else it grows by doubling, without bound where `max_bytes` is None. `fixed` None: on CUDA alone,
    where a missing budget is `FREE_SHARE` of the free memory, for at most `MOST_POSITIONS`.
    Raises `InvalidRequest` for a fixed pool on the CPU without a budget, `Unavailable` when the
    device has no memory for the budget.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        device: torch.device,
        dtype: torch.dtype,
        max_bytes: int | None = None,
        page_size: int = PAGE_SIZE,
        fixed: bool | None = None,
    ) -> None:
        fixed = device.type == "cuda" if fixed is None else fixed
        token_bytes = spec.kv_bytes_per_token(dtype.itemsize)
        if max_bytes is None and fixed:
            if device.type != "cuda":
                raise InvalidRequest("kv_bytes", f"must be given for a fixed pool on {device}")
            free = int(torch.cuda.mem_get_info(device)[0] * FREE_SHARE)
            max_bytes = min(free, MOST_POSITIONS * token_bytes)
        limit = None if max_bytes is None else max_bytes // (page_size * token_bytes)
        count = max(limit or 1, 1) if fixed else 1
        store = KVStore(spec, count, page_size, device=device, dtype=dtype, fixed=fixed)
        self.store = store
        self.pages = PageTable(page_size, store.page_bytes, store.grow, count=count, limit=limit)
