"""The state of decoding: `Rows`, a struct of tensors over the live hypotheses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from types import MappingProxyType
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dlm.core.blocks import BLOCK_COLUMNS, BlockTable


class Kind(IntEnum):
    """What a canvas position is.

    Never derived from the token id: a prompt may spell the mask token. The open kinds are the
    largest, so `kind >= Kind.MASK` reads "open".
    """

    PROMPT = 0  # given (also pinned); never changes
    COMMITTED = 1
    PAD = 2  # dead
    MASK = 3  # open
    NOISE = 4  # open, holds a random token of a uniform process


@dataclass(frozen=True, slots=True)
class ScratchSpec:
    """A tensor that a part keeps between steps.

    `per`: `row` `[R]`, `block` `[R, 8]` or `token` `[R, L]`; `width`: so many values for each, in a
    further dimension.
    """

    name: str
    per: str
    dtype: torch.dtype
    fill: float = 0.0
    width: int | None = None


@dataclass(frozen=True, slots=True)
class HostRows:
    """What the host knows of the rows without asking the device: bounds that change only at syncs.

    `prompt`, `length`, `stored` are `[R]` int64 on the CPU: prompt ids, canvas length, and how many
    leading positions have final keys (exact caches). `pinned [R, L]`: positions that were filled
    from the start, the prompt and what is pinned behind it. `step [R]`: steps that the row has
    taken. `key_step [R, L]`: in which of them each key was made (kept where keys can be out of
    date).
    `blocks` mirrors the device's table.
    `pages [R, C, P]` are page tables: a line for each arm, then one for each auxiliary model, in
    whose pool it counts. `whole_row`: some rule may reopen anything generated, so steps show it
    all.
    """

    prompt: Tensor
    length: Tensor
    stored: Tensor
    pinned: Tensor
    step: Tensor
    key_step: Tensor
    blocks: BlockTable
    pages: Tensor
    whole_row: bool = False

    @property
    def next_unopened(self) -> Tensor:
        """`[R]`: the first position that is to be filled and in no block yet.

        The length where there is none.
        """
        pinned, front, length = (t.numpy() for t in (self.pinned, self.blocks.front, self.length))
        at = np.arange(pinned.shape[1])
        ahead = ~pinned & (at >= front[:, None]) & (at < length[:, None])
        return torch.from_numpy(np.where(ahead.any(axis=1), ahead.argmax(axis=1), length))

    def select(self, index: Tensor) -> HostRows:
        """The rows `index [r]`, in that order."""
        return HostRows(
            self.prompt.index_select(0, index),
            self.length.index_select(0, index),
            self.stored.index_select(0, index),
            self.pinned.index_select(0, index),
            self.step.index_select(0, index),
            self.key_step.index_select(0, index),
            self.blocks.select(index),
            self.pages.index_select(0, index),
            self.whole_row,
        )


@dataclass(frozen=True, slots=True)
class Rows:
    """R live rows: their canvases, clocks, blocks and scratch tensors.

    The last column of every `[R, L]` tensor is spare: columns of a view that hold nothing point
    there.

    ids, kv_ids `[R, L]` int64 (kv_ids: the ids each stored key was made from, -1 = none) · kind
    `[R, L]` int8 · conf `[R, L]` float32 at the last commit (NaN = never) · born `[R, L]` step of
    it (-1 = never) · edits `[R, L]` how often a committed position was revised · prompt, length,
    limit (the answer ends before it; the canvas may be longer), to_fill (how many positions were
    open at first), step, seed, path `[R]` int64 · blocks · scratch by name, as `specs` declare it.
    """

    ids: Tensor
    kv_ids: Tensor
    kind: Tensor
    conf: Tensor
    born: Tensor
    edits: Tensor
    prompt: Tensor
    length: Tensor
    limit: Tensor
    initial_masks: Tensor
    step: Tensor
    seed: Tensor
    path: Tensor
    blocks: BlockTable
    host: HostRows
    scratch: dict[str, Tensor]
    specs: tuple[ScratchSpec, ...] = ()

    @property
    def count(self) -> int:
        """R."""
        return self.ids.shape[0]

    @property
    def capacity(self) -> int:
        """L, with the spare column."""
        return self.ids.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.ids.device

    def select(self, index: Tensor) -> Rows:
        """The rows `index [r]` in that order.

        Repeating a row forks it; its pages are then shared.
        """
        at = index.to(self.device)
        taken = {
            f.name: getattr(self, f.name).index_select(0, at)
            for f in fields(self)
            if f.name not in _NESTED
        }
        return Rows(
            **taken,
            blocks=self.blocks.select(at),
            host=self.host.select(index),
            scratch={name: value.index_select(0, at) for name, value in self.scratch.items()},
            specs=self.specs,
        )

    def prepared(self, scratch: Sequence[ScratchSpec], *, whole_row: bool) -> Rows:
        """Fresh rows with the scratch that their parts declare."""
        shapes = {
            "row": (self.count,),
            "block": (self.count, BLOCK_COLUMNS),
            "token": (self.count, self.capacity),
        }
        kept = {
            s.name: torch.full(
                shapes[s.per] + (() if s.width is None else (s.width,)),
                s.fill,
                dtype=s.dtype,
                device=self.device,
            )
            for s in scratch
        }
        host = replace(self.host, whole_row=whole_row)
        return replace(self, host=host, scratch=kept, specs=tuple(scratch))

    def to(self, device: torch.device) -> Rows:
        """The same rows on `device`; what the host knows of them stays where it is."""
        moved = {
            f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name not in _NESTED
        }
        return Rows(
            **moved,
            blocks=self.blocks.to(device),
            host=self.host,
            scratch={name: value.to(device) for name, value in self.scratch.items()},
            specs=self.specs,
        )

    def with_blocks(self, blocks: BlockTable) -> Rows:
        """The same rows with the host's table `blocks` and its mirror on the device."""
        return replace(self, blocks=blocks.to(self.device), host=replace(self.host, blocks=blocks))

    def with_opened(self, end: Tensor, masks: Tensor) -> Rows:
        """The same rows after blocks have opened: `end`, `masks [R, 8]` as found on the device."""
        on_host = torch.stack((end, masks)).cpu()
        table = replace(self.host.blocks, end=on_host[0], masks=on_host[1])
        blocks = replace(self.blocks, end=end, masks=masks)
        return replace(self, blocks=blocks, host=replace(self.host, blocks=table))

    @staticmethod
    def cat(parts: Sequence[Rows]) -> Rows:
        """Stack rows, widening the narrower canvases (the spare column stays last)."""
        capacity = max(p.capacity for p in parts)
        pages = max(p.host.pages.shape[2] for p in parts)
        wide = [p._widen(capacity, pages) for p in parts]
        plain = {
            f.name: torch.cat([getattr(p, f.name) for p in wide])
            for f in fields(Rows)
            if f.name not in _NESTED
        }
        hosts = [p.host for p in wide]
        host = HostRows(
            torch.cat([h.prompt for h in hosts]),
            torch.cat([h.length for h in hosts]),
            torch.cat([h.stored for h in hosts]),
            torch.cat([h.pinned for h in hosts]),
            torch.cat([h.step for h in hosts]),
            torch.cat([h.key_step for h in hosts]),
            BlockTable.cat([h.blocks for h in hosts]),
            torch.cat([h.pages for h in hosts]),
            hosts[0].whole_row,
        )
        scratch = {name: torch.cat([p.scratch[name] for p in wide]) for name in wide[0].scratch}
        blocks = host.blocks.to(wide[0].device)
        return Rows(**plain, blocks=blocks, host=host, scratch=scratch, specs=wide[0].specs)

    def _widen(self, capacity: int, pages: int) -> Rows:
        if capacity == self.capacity and pages == self.host.pages.shape[2]:
            return self
        more = capacity - self.capacity
        wide = {
            name: F.pad(getattr(self, name), (0, more), value=fill)
            for name, fill in _TOKEN_FILLS.items()
        }
        scratch = {
            spec.name: _pad_tokens(self.scratch[spec.name], more, spec)
            if spec.per == "token"
            else self.scratch[spec.name]
            for spec in self.specs
        }
        more_pages = pages - self.host.pages.shape[2]
        host = replace(
            self.host,
            pages=F.pad(self.host.pages, (0, more_pages)),
            pinned=F.pad(self.host.pinned, (0, more)),
            key_step=F.pad(self.host.key_step, (0, more)),
        )
        return replace(self, host=host, scratch=scratch, **wide)  # type: ignore[arg-type]


def _pad_tokens(value: Tensor, more: int, spec: ScratchSpec) -> Tensor:
    """`[R, L]` or `[R, L, width]` with `more` columns."""
    inner = () if spec.width is None else (0, 0)
    return F.pad(value, (*inner, 0, more), value=spec.fill)


_NESTED = frozenset({"blocks", "host", "scratch", "specs"})
_TOKEN_FILLS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "ids": 0,
        "kv_ids": -1,
        "kind": int(Kind.PAD),
        "conf": float("nan"),
        "born": -1,
        "edits": 0,
    }
)
