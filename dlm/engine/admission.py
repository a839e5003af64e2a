"""Admission: the tensors of a new row, and the group that it joins."""

from __future__ import annotations

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
from dlm.errors import Unavailable

H = TypeVar("H", bound=Handle)
GroupRows = tuple[RowGroup, list[RowState]]
"""A group and the states of its rows."""


def new_group(state: RowState, length: int, pages: Tensor, manager: IterationManager) -> RowGroup:
    """A group of one row on the CPU: a canvas of `length` positions on `pages [C, P]`."""
    parts, config = state.bound.parts, state.bound.config
    scratch = (*parts.scratch, *(manager.aux[name].kv_ids_spec for name in parts.aux))
    rows = new_row(state, length, pages, manager.info)
    rows = rows.prepared(scratch, whole_row=parts.whole_row)
    return group_of(parts, rows, _sampler(config, parts.needs))


def merge(
    groups: Sequence[GroupRows], fresh: Sequence[tuple[RowState, RowGroup]], device: torch.device
) -> list[GroupRows]:
    """The groups with new rows, which join those of their signature, or found some.

    All new rows of a signature are stacked first and moved to `device` together.
    """
    alike: list[tuple[list[RowGroup], list[RowState]]] = []
    for state, group in fresh:  # signatures are compared: a user's part need not be hashable
        mates = next((m for m in alike if m[0][0].signature == group.signature), None)
        if mates is None:
            alike.append(mates := ([], []))
        mates[0].append(group)
        mates[1].append(state)
    found = list(groups)
    for members, states in alike:
        new = RowGroup.cat(members).to(device)
        place = next((i for i, (c, _) in enumerate(found) if c.signature == new.signature), None)
        if place is None:
            found.append((new, states))
        else:
            other, known = found[place]
            found[place] = RowGroup.cat([other, new]), [*known, *states]
    return found


def new_row(state: RowState, length: int, pages: Tensor, info: ModelInfo) -> Rows:
    """One row on the CPU: what is given, open positions to `length`, and the spare column.

    `pages [C, P]`: the page tables of its inputs and auxiliary models. Where an earlier request has
    computed the beginning, its keys are there already.
    """
    count, seed, path = len(state.prompt), state.bound.config.seed, state.choice
    one = torch.ones(1, dtype=torch.long)
    ids, kind = _canvas(state, length, info)
    pinned, stored = kind == Kind.PROMPT, one * state.ledger.reused
    return Rows(
        ids=ids,
        kv_ids=ids.masked_fill(torch.arange(length + 1) >= stored, -1),
        kind=kind,
        conf=torch.full(ids.shape, torch.nan),
        born=torch.full_like(ids, -1),
        edits=torch.zeros_like(ids),
        prompt=one * count,
        length=one * length,
        limit=one * state.limit,
        initial_masks=length - pinned.sum(dim=1),
        step=one * 0,
        seed=one * seed,
        path=one * path,
        blocks=BlockTable.empty(1),
        host=HostRows(
            prompt=one * count,
            length=one * length,
            stored=stored,
            pinned=pinned,
            step=one * 0,
            key_step=torch.zeros_like(ids),
            blocks=BlockTable.empty(1),
            pages=pages[None],
        ),
        scratch={},
    )


def _canvas(state: RowState, length: int, info: ModelInfo) -> tuple[Tensor, Tensor]:
    """Ids and kinds `[1, L]`: what is given, open positions, and the spare column."""
    one, process = torch.ones(1, dtype=torch.long), info.process
    seed, path = one * state.bound.config.seed, one * state.choice
    ids = process.prior(seed, path, torch.arange(length + 1)[None], one * -1)
    kind = torch.full((1, length + 1), int(process.open_kind), dtype=torch.int8)
    for at, token in enumerate((*state.prompt, *state.pinned)):
        if token is not None:
            ids[0, at], kind[0, at] = token, Kind.PROMPT
    kind[0, length] = Kind.PAD
    return ids, kind


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
