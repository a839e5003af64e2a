"""`CanvasReader`: computes canvases in forwards of bounded size and hands on their logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import takewhile
from math import lcm
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from dlm.core import NO_POSITIONS, ForwardPlan, ModelInfo, Segment, span
from dlm.decode.iteration import IterationManager
from dlm.decode.packing import pack
from dlm.errors import Unavailable, not_finite
from dlm.model.attention import takes_ragged
from dlm.model.decoder import Decoder
from dlm.model.kv_store import KVPool

Ids = tuple[int, ...]
MOST_POSITIONS: Final = 2048
"""Positions of one forward where the engine has no bound: requests that run wait for it."""


class Holder(Protocol):
    """The members of an engine that a reader uses."""

    model: Decoder
    info: ModelInfo
    kv: KVPool
    manager: IterationManager


class Readable(Protocol):
    """A canvas to compute."""

    @property
    def ids(self) -> Ids:
        """Its ids."""
        ...

    @property
    def length(self) -> int:
        """The number of its ids."""
        ...

    @property
    def positions(self) -> Sequence[int]:
        """The positions whose logits are wanted, in ascending order, at least one."""
        ...


Row = TypeVar("Row", bound=Readable)


class _Batch(NamedTuple, Generic[Row]):
    """The work of one forward: `start:end` of the shared beginning, or whole rows."""

    start: int
    end: int
    rows: Sequence[Row]


class CanvasReader(Generic[Row]):
    """Computes the rows of one request; `step` does one forward, under the engine's lock.

    `note` gets the rows of each forward with the logits `[N, V]` of their positions, row by row.
    The counters are those of `DecisionCosts`. `close` gives the pages back.

    most: positions of one forward; a row of more has one of its own
    most_rows: rows of one forward (None: no bound)
    shared: positions that all rows begin with, as `shared_length` has them: their keys are computed
        once, and the rows read these
    """

    def __init__(
        self,
        engine: Holder,
        rows: Sequence[Row],
        note: Callable[[Sequence[Row], Tensor], None],
        most: int,
        *,
        most_rows: int | None = None,
        shared: int = 0,
    ) -> None:
        self._engine, self._rows, self._note = engine, rows, note
        self._most, self._most_rows, self.shared = most, most_rows, shared
        self.nfe = self.forwards = self.token_forwards = 0
        self._pages: list[int] = []
        self._batches = self._plan()

    def step(self) -> bool:
        """Compute the next batch; False if there is none.

        Raises `Unavailable` when the key/value pool has no room for a single row, and
        `CheckpointError` when logits are not finite.
        """
        batch = next(self._batches, None)
        if batch is None:
            self.close()
            return False
        if batch.rows:
            self._read(batch.rows)
        else:
            self._prefill(batch.start, batch.end)
        return True

    @property
    def shared_forwards(self) -> int:
        """The forwards for the keys that all rows share, of one canvas each."""
        return len(self._shared_parts())

    def close(self) -> None:
        """Give all pages back."""
        self._engine.kv.pages.release(self._pages)
        self._pages = []

    def _plan(self) -> Iterator[_Batch[Row]]:
        """The batches in order, the longest rows first, so that those of one are of like sizes."""
        for start, end in self._shared_parts():
            yield _Batch(start, end, ())
        rows: list[Row] = []
        count = 0
        for row in sorted(self._rows, key=lambda row: -row.length):
            own = row.length - self.shared
            if rows and (count + own > self._most or len(rows) == self._most_rows):
                yield _Batch(0, 0, rows)
                rows, count = [], 0
            rows.append(row)
            count += own
        yield _Batch(0, 0, rows)

    def _shared_parts(self) -> list[tuple[int, int]]:
        """The shared beginning in parts of whole blocks, each of one forward."""
        unit = self._engine.info.alignment
        size = max(self._most // unit, 1) * unit
        starts = range(0, self.shared, size)
        return [(start, min(start + size, self.shared)) for start in starts]

    def _prefill(self, start: int, end: int) -> None:
        """Compute the keys of `start:end`, which all rows share."""
        pages = self._engine.kv.pages
        if not self._pages:
            self._pages = self._reserve(pages.pages_for(self.shared))
        ids = self._rows[0].ids[:end]
        self._forward([ids], [self._segments(0, start, end, NO_POSITIONS)], [self._pages])

    def _read(self, rows: Sequence[Row]) -> None:
        """Compute rows and hand on their logits; halve the batch where the pool has no room."""
        kept = len(self._pages) * self._engine.kv.pages.page_size
        own: list[list[int]] = []
        try:
            for row in rows:
                own.append(self._reserve(self._engine.kv.pages.pages_for(row.length - kept)))
            plans = [
                self._segments(n, self.shared, row.length, np.array(row.positions, dtype=np.int64))
                for n, row in enumerate(rows)
            ]
            tables = [[*self._pages, *pages] for pages in own]
            logits = self._forward([row.ids for row in rows], plans, tables)
        except Unavailable:
            if len(rows) == 1:
                raise
            logits = None
        finally:
            for pages in own:
                self._engine.kv.pages.release(pages)
        if logits is None:
            half = len(rows) // 2
            self._read(rows[:half])
            self._read(rows[half:])
        elif not bool(logits.isfinite().all()):
            raise not_finite()
        else:
            self._note(rows, logits)

    def _reserve(self, count: int) -> list[int]:
        """Take free pages; kept prefixes make room where there are too few."""
        prefixes, pages = self._engine.manager.page_manager.prefixes, self._engine.kv.pages
        while True:
            with suppress(Unavailable):
                return pages.reserve(count)
            if prefixes is None or not prefixes.give_back():
                return pages.reserve(count)

    def _segments(self, row: int, start: int, end: int, predict: np.ndarray) -> list[Segment]:
        """The queries `start:end` of a row: one run, or one for each block of a block-causal model,
        which reads no key after it.
        """
        info = self._engine.info
        if info.attention != "block_causal":
            return [Segment(row, 0, span(start, end), end, write=True, predict=predict)]
        size = info.alignment
        return [
            Segment(
                row,
                0,
                span(at, at + size),
                at + size,
                write=True,
                predict=predict[(predict >= at) & (predict < at + size)],
            )
            for at in range(start, end, size)
        ]

    def _forward(
        self,
        canvases: Sequence[Ids],
        segments: Sequence[Sequence[Segment]],
        pages: Sequence[Sequence[int]],
    ) -> Tensor:
        """One call of the model: logits `[N, V]` of the predicted positions, row by row."""
        engine, device = self._engine, self._engine.model.embedding.weight.device
        longest, columns = max(map(len, canvases)), max(map(len, pages))
        ids = torch.full((len(canvases), longest), engine.info.pad_id)
        table = torch.zeros((len(canvases), 1, columns), dtype=torch.long)
        for row, (canvas, own) in enumerate(zip(canvases, pages, strict=True)):
            ids[row, : len(canvas)] = torch.tensor(canvas)
            table[row, 0, : len(own)] = torch.tensor(own)
        runs = tuple(segment for row in segments for segment in row)
        lengths = np.array([len(canvas) for canvas in canvases])
        plan = ForwardPlan(runs, ("step",) * len(canvases), table, longest, lengths=lengths)
        ragged = takes_ragged(engine.kv.store.storage)
        packed = pack(
            [plan], engine.kv.store, shift=engine.info.shift, device=device, ragged=ragged
        )
        logits: Tensor = engine.model(packed.read([ids.to(device)]), engine.kv.store)
        self.nfe, self.forwards = self.nfe + len(canvases), self.forwards + 1
        self.token_forwards += sum(plan.token_forwards)
        return logits


def sharing_unit(engine: Holder) -> int | None:
    """The length of which shared beginnings are multiples: whole pages and blocks; None where keys
    depend on what follows, or on the length, so that rows cannot share any.
    """
    info, kv = engine.info, engine.kv
    if info.attention != "block_causal" or kv.store.angles_by_length:
        return None
    return lcm(kv.pages.page_size, info.alignment)


def shared_length(engine: Holder, rows: Sequence[Readable]) -> int:
    """Positions whose keys all rows can share: those that they begin with, before all that is read,
    in whole units.
    """
    unit = sharing_unit(engine)
    if unit is None or len(rows) < 2:
        return 0
    common = len(common_beginning([row.ids for row in rows]))
    first = min(row.positions[0] for row in rows) - int(engine.info.shift)
    return min(common, first) // unit * unit


def common_beginning(rows: Sequence[Ids]) -> Ids:
    """The ids that all rows begin with."""
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
    return tuple(column[0] for column in alike)
