"""Rows through the scheduler, with all that tests compare written down: canvases, keys, logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlm.config import GenerationConfig
from dlm.core import Kind, ModelInfo, Packed
from dlm.decode.auxiliary import AuxiliaryModel
from dlm.decode.iteration import IterationManager
from dlm.decode.reference import Reference
from dlm.engine.binding import bind_request
from dlm.engine.row import RowState
from dlm.engine.scheduler import Scheduler
from dlm.model.decoder import Decoder
from dlm.model.kv_store import KVPool, KVStore
from dlm.model.spec import ModelSpec

CPU = torch.device("cpu")


def info_of(spec: ModelSpec, delimiters: tuple[int, ...] = ()) -> ModelInfo:
    """What decoding knows of a model with this spec."""
    assert spec.mask_id is not None
    return ModelInfo(
        spec.family,
        spec.vocab_size,
        spec.mask_id,
        spec.eos_ids,
        spec.pad_id or 0,
        spec.max_length,
        spec.attention,
        spec.block_length,
        spec.shift,
        delimiters,
    )


class Forward(NamedTuple):
    """One row's part of one forward: positions computed, those whose keys were stored, logits of
    the predicted positions, and what keys were read: position -> forwards since it was made, and
    the positions whose key was made of another id than the canvas holds. `computed` counts the
    positions of all model inputs; everything else is of the first.
    """

    queries: tuple[int, ...]
    written: frozenset[int]
    logits: dict[int, Tensor]
    ages: dict[int, int]
    foreign: frozenset[int]
    computed: int


class Live(NamedTuple):
    """A live row as the device has it: its first page in each model input, its canvas."""

    state: RowState
    pages: list[int]
    ids: list[int]
    kinds: list[int]
    kv_ids: list[int]


@dataclass
class Trace:
    """What happened to one row. `canvases` starts with the first canvas and has one more after
    each sync; `kinds` runs along.
    """

    canvases: list[list[int]] = field(default_factory=list)
    kinds: list[list[int]] = field(default_factory=list)
    forwards: list[Forward] = field(default_factory=list)


class Probe(Scheduler):
    """A scheduler that copies the device's canvases after each step, before done rows leave."""

    def __init__(self, bench: Bench, manager: IterationManager, max_rows: int) -> None:
        super().__init__(manager, max_rows=max_rows)
        self.bench = bench

    def rows(self) -> list[Live]:
        """All live rows."""
        found = []
        for group, states in self._live.groups:
            for row, state in enumerate(states):
                length = int(group.rows.length[row])
                pages = group.rows.host.pages[row, : group.shared.arms, 0].tolist()
                tensors = (group.rows.ids, group.rows.kind, group.rows.kv_ids)
                found.append(Live(state, pages, *(t[row, :length].tolist() for t in tensors)))
        return found

    def _drop_done(self) -> None:
        for row in self.rows():
            trace = self.bench.traces[row.state]
            if len(trace.forwards) >= len(trace.canvases):  # not yet seen after this forward
                trace.canvases.append(row.ids)
                trace.kinds.append(row.kinds)
        super()._drop_done()


class Bench:
    """A decoder with its pool and scheduler; called as the model, it spies on every forward."""

    def __init__(
        self,
        decoder: Decoder,
        delimiters: tuple[int, ...] = (),
        max_rows: int = 16,
        unroll: int = 1,
        aux: Mapping[str, AuxiliaryModel] = MappingProxyType({}),
    ) -> None:
        self.decoder = decoder
        masked = tuple(n for n, model in aux.items() if isinstance(model, Reference))
        info = info_of(decoder.spec, delimiters)
        self.info = replace(info, aux=tuple(aux), references=masked)
        device = decoder.embedding.weight.device
        self.pool = KVPool(decoder.spec, device=device, dtype=decoder.embedding.weight.dtype)
        manager = IterationManager(self, self.pool, self.info, device, unroll, aux)
        self.scheduler = Probe(self, manager, max_rows)
        self.traces: dict[RowState, Trace] = {}
        self.verdicts = 0
        self._made: dict[int, tuple[Trace, int, int]] = {}  # slot -> row, id, its forward

    def state(self, prompt: Sequence[int], path: int = 0, **options: Any) -> RowState:
        """A row to submit, its config given as options."""
        bound = bind_request(GenerationConfig.from_options(options), None, self.info)
        state = RowState(tuple(prompt), bound, path, path, path)
        self.traces[state] = Trace()
        return state

    def run(self, *states: RowState, after: Mapping[int, int] | None = None) -> list[Trace]:
        """Decode to the end; `after`: ticket number -> steps taken before it is submitted."""
        late = dict(after or {})
        steps = 0
        while not all(t.done for t in states):
            for number, state in enumerate(states):
                if late.get(number, 0) == steps:
                    self.scheduler.submit(state)
            self.step()
            steps += 1
            assert steps < 2000, "decoding does not end"
        self.scheduler.check_integrity()
        assert self.pool.pages.in_use == 0
        return [self.traces[t] for t in states]

    def step(self) -> None:
        """One step of the scheduler."""
        with torch.inference_mode():
            self.scheduler.step()

    def decode(self, prompt: Sequence[int], **options: Any) -> Trace:
        """One row, alone."""
        return self.run(self.state(prompt, **options))[0]

    def __call__(self, packed: Packed, kv: KVStore) -> Tensor:
        logits = self.decoder(packed, kv)
        if not len(packed.write_slots):  # it only judges what another one has drafted
            self.verdicts += 1
            return logits
        for row in self.scheduler.rows():
            trace = self.traces[row.state]
            if not trace.canvases:
                trace.canvases.append(row.ids)
                trace.kinds.append(row.kinds)
            trace.forwards.append(self._look(packed, logits, row, trace))
        return logits

    def _look(self, packed: Packed, logits: Tensor, row: Live, trace: Trace) -> Forward:
        """One row's part; a row is known by the page that holds its position 0."""
        writes, now, ids = len(packed.write_slots), len(trace.forwards), row.ids
        queries: list[int] = []  # of the packed ones, those of the first input
        seen: dict[int, int] = {}  # position -> slot
        computed = 0
        for group in packed.groups:
            size = (group.end - group.start) // len(group.key_slots)
            for place, slots in enumerate(group.key_slots.tolist()):
                page = slots[0] // self.pool.store.page_size
                computed += size * (page in row.pages)
                if page == row.pages[0] and not group.own:  # shadows stand on no canvas
                    first = group.start + place * size
                    queries += range(first, first + size)
                    seen |= dict(enumerate(slots))
        positions = {q: int(packed.positions[q]) for q in queries}
        for q in queries:
            if q < writes:
                assert int(packed.ids[q]) == ids[positions[q]], "a query of another row's ids"
                self._made[int(packed.write_slots[q])] = trace, ids[positions[q]], now
        made = {p: self._made[slot] for p, slot in seen.items()}
        assert all(owner is trace for owner, _, _ in made.values()), "a key of another row"
        fresh = {positions[q] for q in queries if q < writes}  # their kv_ids come after the call
        known = ((p, token) for p, (_, token, _) in made.items() if p not in fresh)
        assert all(token == row.kv_ids[p] for p, token in known), "kv_ids"
        predicted = {int(q): n for n, q in enumerate(packed.logit_rows) if int(q) in positions}
        shift = int(self.info.shift)
        return Forward(
            tuple(sorted(positions.values())),
            frozenset(positions[q] for q in queries if q < writes),
            {positions[q] + shift: logits[n] for q, n in predicted.items()},
            {p: now - then for p, (_, _, then) in made.items()},
            frozenset(p for p, (_, token, _) in made.items() if token != ids[p]),
            computed,
        )


def open_positions(kinds: Sequence[int]) -> set[int]:
    """Where a canvas is still open."""
    return {p for p, kind in enumerate(kinds) if kind >= Kind.MASK}
