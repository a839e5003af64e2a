"""Admission: the first canvas and the tensors of a new row, and the bound of the queue."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import TypeVar

import torch
from torch import Tensor

from dlm.config import GenerationConfig
from dlm.core import BlockTable, HostRows, Kind, ModelInfo, Rows
from dlm.decode.group import RowGroup, group_of
from dlm.decode.iteration import IterationManager
from dlm.decode.sampling import Sampler
from dlm.engine.generation import Generation, Handle
from dlm.engine.row import RowState
from dlm.errors import InvalidRequest, Unavailable

H = TypeVar("H", bound=Handle)


def canvas_length(state: RowState, info: ModelInfo) -> int:
    """The positions of a row's canvas, rounded up to whole trained blocks."""
    step = info.alignment
    return -(-state.limit // step) * step


def check_size(state: RowState, manager: IterationManager, most: int | None) -> None:
    """Raises `InvalidRequest` if the canvas of a row exceeds a model or a forward of at most `most`
    positions (None: of any number), `Unavailable` if a pool.
    """
    length, parts = canvas_length(state, manager.info), state.bound.parts
    limits = {"the model": manager.info.max_length}
    for name in parts.aux:
        given = {"prompt": state.prompt, "infill": state.pinned, "canvas": state.bound.committed}
        for param, ids in given.items():
            manager.aux[name].check_ids(param, [token for token in ids if token is not None])
        limits[f"auxiliary {name!r}"] = manager.aux[name].max_length
    for name, limit in limits.items():
        if length > limit:
            raise InvalidRequest(
                "max_new_tokens",
                f"a prompt of {len(state.prompt)} and {state.bound.length} "
                f"new tokens make a canvas of {length}; the limit of {name} is {limit}",
            )
    inputs = parts.arms * parts.unmask.canvases
    if most is not None and length * inputs > most:
        raise InvalidRequest(
            "max_new_tokens",
            f"a canvas of {length} positions in {inputs} inputs does not fit one forward "
            f"of at most {most} (`max_token_forwards`)",
        )
    if not manager.page_manager.fits_ever(parts, length):
        raise Unavailable(f"a canvas of {length} positions does not fit the key/value budget")


def first_canvas(state: RowState, info: ModelInfo) -> tuple[list[int], list[Kind]]:
    """The ids and kinds of a new canvas: what is given, and open positions."""
    one, process, length = torch.ones(1, dtype=torch.long), info.process, canvas_length(state, info)
    seed, path = one * state.bound.config.seed, one * state.path
    ids = process.prior(seed, path, torch.arange(length)[None], one * -1)[0].tolist()
    kinds = [process.open_kind] * length
    for start, given, kind in (
        (len(state.prompt), state.bound.committed, Kind.COMMITTED),
        (0, (*state.prompt, *state.pinned), Kind.PROMPT),
    ):
        for at, token in enumerate(given, start):
            if token is not None:
                ids[at], kinds[at] = token, kind
    return ids, kinds


def opened_ids(state: RowState, positions: Sequence[int], info: ModelInfo) -> list[int]:
    """The ids of positions that are opened from outside."""
    one = torch.ones(1, dtype=torch.long)
    seed, path, step = (one * n for n in (state.bound.config.seed, state.path, state.ledger.nfe))
    ids: list[int] = info.process.prior(seed, path, torch.tensor([positions]), step)[0].tolist()
    return ids


def new_group(state: RowState, pages: Tensor, manager: IterationManager) -> RowGroup:
    """A group of one row on the CPU, on `pages [C, P]`."""
    parts, config = state.bound.parts, state.bound.config
    own = (spec for name in parts.aux for spec in manager.aux[name].scratch)
    scratch = (*parts.scratch, *own)
    rows = new_row(state, pages).prepared(scratch, whole_row=parts.whole_row)
    return group_of(parts, rows, _sampler(config, parts.needs), state.likely)


def new_row(state: RowState, pages: Tensor) -> Rows:
    """One row on the CPU: its canvas as the host has it, and the spare column.

    `pages [C, P]`: the page tables of its inputs and auxiliary models. Where an earlier request has
    computed the beginning, its keys are there already.
    """
    canvas, one = state.canvas, torch.ones(1, dtype=torch.long)
    ids = torch.tensor([[*canvas.ids, 0]])
    kind = torch.tensor([[*canvas.kinds, Kind.PAD]], dtype=torch.int8)
    conf = [math.nan if value is None else value for value in (*canvas.conf, None)]
    step, open_count = state.ledger.nfe, (kind >= Kind.MASK).sum()
    length, stored = len(canvas.ids), one * state.ledger.reused
    return Rows(
        ids=ids,
        kv_ids=ids.masked_fill(torch.arange(ids.shape[1]) >= stored, -1),
        kind=kind,
        conf=torch.tensor([conf]),
        born=torch.full_like(ids, -1),
        edits=torch.zeros_like(ids),
        prompt=one * len(state.prompt),
        length=one * length,
        limit=one * state.limit,
        initial_masks=one * state.initial_masks,
        step=one * step,
        grace=one * max(step + int(open_count) - state.initial_masks, 0),
        seed=one * state.bound.config.seed,
        path=one * state.path,
        blocks=BlockTable.empty(1),
        host=HostRows(
            prompt=one * len(state.prompt),
            length=one * length,
            stored=stored,
            skipped=skipped_of(state)[None],
            step=one * step,
            first_step=one * step,
            key_step=torch.zeros_like(ids),
            blocks=BlockTable.empty(1),
            pages=pages[None],
        ),
        scratch={},
    )


def skipped_of(state: RowState) -> Tensor:
    """`[L]`: the filled positions that no block opens for; editors see the others once more."""
    kinds, edits = state.canvas.kinds, bool(state.bound.parts.edit)
    return torch.tensor(
        [
            kind == Kind.PROMPT
            or (kind == Kind.COMMITTED and not (edits and at >= state.revise_from))
            for at, kind in enumerate((*kinds, Kind.PAD))
        ]
    )


def _sampler(config: GenerationConfig, needs: frozenset[str]) -> Sampler | None:
    """The sampler of a row; None when it is greedy and no rule reads the filtered distribution."""
    filters = config.top_p < 1 or config.top_k > 0
    if config.temperature == 0 and not (filters and "sampling" in needs):
        return None
    temperature, top_p = (torch.tensor([float(n)]) for n in (config.temperature, config.top_p))
    return Sampler(temperature, top_p, torch.tensor([config.top_k]), filters)


class QueueLimit:
    """A bound of the rows that an engine holds: `max_rows` live ones and `max_waiting` more.

    `max_waiting` None: no bound. Safe to use from several threads.
    """

    def __init__(self, max_rows: int, max_waiting: int | None) -> None:
        self.max_rows, self.max_waiting = max_rows, max_waiting
        self._held: list[RowState] = []
        self._lock = Lock()

    def take(self, states: Sequence[RowState]) -> None:
        """Count new rows in, all of them or none. Raises `Unavailable` where they are too many."""
        if self.max_waiting is None:
            return
        with self._lock:
            self._held = [state for state in self._held if not state.done]
            excess = len(self._held) + len(states) - self.max_rows - self.max_waiting
            if excess > 0:
                raise Unavailable(
                    f"the queue is full: {len(self._held)} rows run or wait and {len(states)} more "
                    f"are asked for, of at most {self.max_rows} and {self.max_waiting} waiting",
                    _seconds_until(excess, self._held),
                )
            self._held += states


def _seconds_until(count: int, states: Sequence[RowState]) -> float | None:
    """A guess of the seconds until `count` of these rows have ended; None without any to judge by.

    A row that runs is taken to fill its open positions as fast as those before. Rows that wait
    take the mean time of those that run, as many at once.
    """
    now, left, whole = time.perf_counter(), [], []
    for state in states:
        kinds = state.canvas.kinds[len(state.prompt) : state.limit]
        still_open = sum(kind >= Kind.MASK for kind in kinds)
        if state.started and still_open < len(kinds):
            took = now - state.started
            each = took / (len(kinds) - still_open)
            left.append(each * still_open)
            whole.append(each * len(kinds))
    if not left or count > len(states):
        return None
    rounds, place = divmod(count - 1, len(left))
    return sorted(left)[place] + rounds * sum(whole) / len(whole)


def in_order(
    requests: Iterator[H], enqueue: Callable[[H], object], most: int
) -> Iterator[Generation]:
    """The results of requests in their order. At most `most` are held at a time, queued or ended.

    One that `enqueue` refuses with `Unavailable` waits until an earlier one has ended. Leaving the
    loop aborts those that are held.
    """
    held: deque[H] = deque()
    late: H | None = None
    try:
        while True:
            while len(held) < most and (late := late or next(requests, None)) is not None:
                try:
                    enqueue(late)
                except Unavailable:
                    if not held:
                        raise
                    break
                held.append(late)
                late = None
            if not held:
                return
            yield held[0].result()
            held.popleft()
    finally:
        for request in held:
            request.abort()
