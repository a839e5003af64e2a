"""References: a second masked diffusion model that reads the same canvas, for guides.

It runs before the guides in a forward of its own over whole canvases, on pages of its own. What it
keeps of a row are hidden states, from which logits are made where a step needs them: a reading can
so serve several steps, at `D` numbers a position in place of `V`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from dlm.core import Entries, Flags, ForwardPlan, Ints, Rows, ScratchSpec, Segment, Window, span
from dlm.decode.auxiliary import NEVER, AuxiliaryModel
from dlm.decode.group import RowGroup
from dlm.decode.packing import pack
from dlm.decode.pages import copy_on_write
from dlm.model.attention import takes_ragged
from dlm.model.spec import ModelSpec


@dataclass(frozen=True, slots=True, eq=False)
class Reference(AuxiliaryModel):
    """A masked diffusion model with the vocabulary of the one that is decoded.

    model: a decoder with `hidden` and `logits_of`
    spec: its sizes and traits
    """

    spec: ModelSpec = field(kw_only=True)

    @property
    def states(self) -> ScratchSpec:
        """The hidden states of the last reading."""
        dtype = self.kv.store.storage.dtype
        return ScratchSpec(f"states.{self.name}", "token", dtype, width=self.spec.hidden_size)

    @property
    def read_at(self) -> ScratchSpec:
        """The step of the last reading."""
        return ScratchSpec(f"read_at.{self.name}", "row", torch.long, NEVER)

    @property
    def scratch(self) -> tuple[ScratchSpec, ...]:
        """The last reading of each row."""
        return self.states, self.read_at

    def read(
        self, group: RowGroup, window: Window, line: int, every: Tensor
    ) -> tuple[Tensor, Mapping[str, Tensor | Entries]]:
        """Its log-probabilities `[N, V]` of the ids of the diffusion model, for the rows of the
        logits without shadow tokens, and what is to be kept.

        A row is read again where its last reading is `every [R]` steps old. `line`: the model's
        page row in the tables. Shared pages that it writes become the rows' own; `aux_tokens` of
        the group counts the computed tokens.
        """
        rows, last = group.rows, group.rows.scratch[self.read_at.name]
        due = (last == NEVER) | (rows.step - last >= every)
        plan = self._plan(rows, due.cpu().numpy(), line)
        group.aux_tokens[self.name] = plan.token_forwards
        known = rows.scratch[self.states.name]
        fresh = self._states(group, plan, line) if plan.segments else known.new_empty(1, 0)
        count = len(window.slot)
        row, query = window.row[:count], window.pos.take(window.slot) - int(self.spec.shift)
        query = query.clamp_min(0)
        hidden = known.flatten(0, 1).index_select(0, row * rows.capacity + query)
        kept: dict[str, Tensor | Entries] = {}
        if plan.segments:
            at = torch.from_numpy(_offsets(plan)).to(rows.device)[row]
            place = (at + query).clamp(0, len(fresh) - 1)
            hidden = torch.where((at >= 0)[:, None], fresh.index_select(0, place), hidden)
            places = torch.from_numpy(plan.written).to(rows.device)
            kept[self.states.name] = Entries(places, fresh)
            kept[self.read_at.name] = torch.where(due, rows.step, last)
        logp = torch.log_softmax(self.model.logits_of(hidden), dim=1)
        return self.for_model_ids(logp), kept

    def _states(self, group: RowGroup, plan: ForwardPlan, line: int) -> Tensor:
        """One forward: the hidden states of every planned position, `[T, D]`."""
        rows, store = group.rows, self.kv.store
        plan = replace(plan, pages=copy_on_write(self.kv, plan))
        pages = rows.host.pages.clone()
        pages[:, line] = plan.pages[:, 0]
        group.rows = replace(rows, host=replace(rows.host, pages=pages))
        ragged = takes_ragged(store.storage)
        packed = pack([plan], store, shift=False, device=rows.device, ragged=ragged)
        hidden: Tensor = self.model.hidden(packed.read([self.own_ids(rows.ids)]), store)
        return hidden

    def _plan(self, rows: Rows, due: Flags, line: int) -> ForwardPlan:
        """The whole canvases of the rows that are `due [R]`, with nothing reused."""
        lengths: Ints = rows.host.length.numpy()
        segments = []
        for row in due.nonzero()[0].tolist():
            length = int(lengths[row])
            every = span(0, length)
            segments.append(Segment(row, 0, every, self._key_end(every, length), True, every))
        pages = rows.host.pages[:, line : line + 1]
        purposes = ("aux",) * rows.count
        return ForwardPlan(tuple(segments), purposes, pages, rows.capacity, lengths=lengths)

    def _key_end(self, positions: Ints, length: int) -> int | Ints:
        """The keys that each of its queries sees: all, or those up to the end of its block."""
        if self.spec.attention != "block_causal" or not self.spec.block_length:
            return length
        block = self.spec.block_length
        ends: Ints = np.minimum((positions // block + 1) * block, length)
        return ends


def _offsets(plan: ForwardPlan) -> Ints:
    """`[R]`: the first of the states of each row among those of the plan, -1 where it has none."""
    offsets = np.full(len(plan.purposes), -1)
    at = 0
    for segment in plan.segments:
        offsets[segment.row] = at
        at += len(segment.q_pos)
    return offsets
