"""The state of decoding: `Rows`, a struct of tensors over the live hypotheses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dlm.core.blocks import BLOCK_COLUMNS, BlockTable, Phase
from dlm.core.plan import INT64_MAX
from dlm.core.struct import TensorStruct


class Kind(IntEnum):
    """The state of a canvas position.

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

    per: `row` `[R]`, `block` `[R, 8]` or `token` `[R, L]`.
    fill: the value at the start.
    width: values for each row, block or token, in a further dimension (None: one, without it).
    """

    name: str
    per: str
    dtype: torch.dtype
    fill: float = 0.0
    width: int | None = None

    def tensor(self, canvas: Tensor) -> Tensor:
        """The tensor at the start, for rows with `canvas [R, L]`."""
        rows, capacity = canvas.shape
        shape = {"row": (rows,), "block": (rows, BLOCK_COLUMNS), "token": (rows, capacity)}
        inner = () if self.width is None else (self.width,)
        return torch.full(
            shape[self.per] + inner, self.fill, dtype=self.dtype, device=canvas.device
        )


DRAFT = (
    ScratchSpec("draft.token", "token", torch.long),
    ScratchSpec("draft.order", "token", torch.long),
)
"""The scratch of a part that plans branches: for each position the drafted id, and its place in the
order in which branches fill them in, from 1 on (0: not drafted).
"""


@dataclass(frozen=True, slots=True)
class HostRows(TensorStruct):
    """The part of the rows that the host knows without asking the device; on the CPU.

    It changes only at syncs.

    prompt: prompt ids, `[R]` int64.
    length: canvas length, `[R]` int64.
    stored: leading positions that have final keys (exact caches), `[R]` int64.
    skipped: filled positions that no block opens for, `[R, L]` bool.
    step: steps that the row has taken, `[R]` int64.
    first_step: those that it had taken when it got its pages, which hold no keys then, `[R]` int64.
    key_step: the step that made each key (kept where keys can be out of date), `[R, L]` int64.
    blocks: the device's table.
    pages: page tables, `[R, C, P]`: a line for each arm, then one for each auxiliary model, in
        whose pool it counts.
    whole_row: some rule may reopen anything generated, so steps show it all.
    """

    prompt: Tensor
    length: Tensor
    stored: Tensor
    skipped: Tensor = field(metadata={"fill": False})
    step: Tensor
    first_step: Tensor
    key_step: Tensor = field(metadata={"fill": 0})
    blocks: BlockTable
    pages: Tensor = field(metadata={"fill": 0})
    whole_row: bool = False

    @property
    def next_unopened(self) -> Tensor:
        """`[R]`: the first position that is to be filled and in no block yet.

        The length where there is none.
        """
        skipped, front, length = (t.numpy() for t in (self.skipped, self.blocks.front, self.length))
        at = np.arange(skipped.shape[1])
        ahead = ~skipped & (at >= front[:, None]) & (at < length[:, None])
        return torch.from_numpy(np.where(ahead.any(axis=1), ahead.argmax(axis=1), length))

    def with_stored_keys(self) -> HostRows:
        """The same after a forward has stored its keys.

        Clean blocks that were planned have their final keys, and so has all before a live block.
        """
        table = self.blocks
        first = torch.where(table.live, table.start, INT64_MAX).amin(dim=1)
        phase = torch.where(table.phase == Phase.CLEAN, int(Phase.STORED), table.phase)
        stored = torch.where(table.live.any(dim=1), first, self.stored)
        return replace(self, stored=stored, blocks=replace(table, phase=phase))

    def to(self, device: torch.device | str) -> Self:
        """The same: it stays on the host."""
        return self


def _scratch_fills(rows: Rows) -> Mapping[str, float]:
    """The values of new places in the scratch that has a value for each token."""
    return {spec.name: spec.fill for spec in rows.specs if spec.per == "token"}


@dataclass(frozen=True, slots=True)
class Rows(TensorStruct):
    """R live rows: their canvases, clocks, blocks and scratch tensors.

    The last column of every `[R, L]` tensor is spare: columns of a view that hold nothing point
    there, steps write there what they do not commit, and nobody reads it. When rows are stacked,
    narrower canvases are widened, so that it stays last. A row that is selected twice is forked;
    its pages are then shared.

    ids: the canvas, `[R, L]` int64.
    kv_ids: the ids each stored key was made from (-1: none), `[R, L]` int64.
    kind: a `Kind` for each position, `[R, L]` int8.
    conf: confidence at the last commit (NaN: never), `[R, L]` float32.
    born: step of the last commit (-1: never), `[R, L]` int64.
    edits: how often a committed position was revised, `[R, L]` int64.
    prompt, length: prompt ids and canvas length, `[R]` int64.
    limit: end of the answer (the canvas may be longer), `[R]` int64.
    initial_masks: positions that were open at first, `[R]` int64.
    step: steps taken, `[R]` int64.
    grace: steps that reopening from outside has granted beyond one a commit, `[R]` int64.
    seed, path: keys of the random numbers, `[R]` int64.
    blocks: the spans being denoised.
    host: the part that the host knows.
    scratch: tensors of the parts by name.
    specs: their declarations.
    """

    ids: Tensor = field(metadata={"fill": 0})
    kv_ids: Tensor = field(metadata={"fill": -1})
    kind: Tensor = field(metadata={"fill": int(Kind.PAD)})
    conf: Tensor = field(metadata={"fill": float("nan")})
    born: Tensor = field(metadata={"fill": -1})
    edits: Tensor = field(metadata={"fill": 0})
    prompt: Tensor
    length: Tensor
    limit: Tensor
    initial_masks: Tensor
    step: Tensor
    grace: Tensor
    seed: Tensor
    path: Tensor
    blocks: BlockTable
    host: HostRows
    scratch: dict[str, Tensor] = field(metadata={"fill": _scratch_fills})
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
        """The device of the tensors."""
        return self.ids.device

    @property
    def draft(self) -> tuple[Tensor, Tensor] | None:
        """The tensors of `DRAFT`, `[R, L]` each, where a part keeps them."""
        token, order = (self.scratch.get(spec.name) for spec in DRAFT)
        return None if token is None or order is None else (token, order)

    def prepared(self, scratch: Sequence[ScratchSpec], *, whole_row: bool) -> Rows:
        """Fresh rows with the scratch that their parts declare."""
        tensors = {spec.name: spec.tensor(self.ids) for spec in scratch}
        host = replace(self.host, whole_row=whole_row)
        return replace(self, host=host, scratch=tensors, specs=tuple(scratch))

    def with_blocks(self, blocks: BlockTable) -> Rows:
        """The same rows with the host's table `blocks` and its mirror on the device."""
        return replace(self, blocks=blocks.to(self.device), host=replace(self.host, blocks=blocks))

    def with_opened(self, end: Tensor, masks: Tensor) -> Rows:
        """The same rows after blocks have opened: `end`, `masks [R, 8]` as found on the device."""
        on_host = torch.stack((end, masks)).cpu()
        table = replace(self.host.blocks, end=on_host[0], masks=on_host[1])
        blocks = replace(self.blocks, end=end, masks=masks)
        return replace(self, blocks=blocks, host=replace(self.host, blocks=table))
