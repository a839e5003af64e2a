"""`RowState`: the host's record of one row, and the events and costs of its steps."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Hashable, Sequence
from copy import copy
from dataclasses import dataclass, field
from threading import RLock
from typing import TYPE_CHECKING, Final

from dlm.config import BoundConfig
from dlm.core import Event, HostCanvas, Kind
from dlm.core.canvas import first_end
from dlm.core.contracts import checked_spent
from dlm.decode.apply import step_limit
from dlm.decode.outputs import RowStep, events_of
from dlm.decode.top import Draft
from dlm.engine.faults import endless, require_finite
from dlm.engine.generation import answer_of
from dlm.engine.stats import Ledger
from dlm.errors import Unavailable, blaming
from dlm.text.stream import StopStringWatcher

if TYPE_CHECKING:
    from dlm.engine.live import Until

UNSETTLED: Final = ("abort", "error")
"""Causes that end a row in the middle: nothing more is settled."""


def finish_reason(cause: str, *, complete: bool) -> str:
    """The reason that a row ends for: `stop` where its answer is complete, else the cause.

    complete: an end id or a stop string is in the answer, or it reaches what is given at its end.
    """
    return "stop" if complete and cause not in UNSETTLED else cause


@dataclass(slots=True, eq=False)
class RowState:
    """One choice of one request: its inputs, and what is known of it while it runs.

    prompt: its ids.
    bound: the parts and options.
    choice: number of the answer in its request.
    row: number of the row in its events.
    path: of its random draws.
    watch: looks for stop strings (None: there are none).
    lineage: the same in rows that are equal but for their path (empty: no other is known).
    seen: ids of the answer that the watch knows.
    events: the mailbox (None: nobody will read it).
    trace: all events, when that was asked for.
    canvas: the canvas as the events tell it.
    ledger: its costs.
    started, seconds: time of its admission, and from there to its end.
    error: raised where the row failed.
    kept: leading positions whose keys are kept for other requests.
    opened: start of the latest block.
    most_steps: more steps than it takes if it has an end.
    initial_masks: positions that were open when it began.
    revise_from: editors see committed positions from here on once more.
    filled_blocks: blocks that were filled.
    parked: it holds its canvas and keys and is not stepped.
    until: the point at which it is parked (None: it runs to its end).
    no_room: raised where the row went on and the pool had no pages for it; it is parked again.
    draft: of the last step, the draft at each position that it read.
    keeps: drafts keep this many of the most likely ids, or as many as the request asks for.
    lock: held while a step changes the canvas, by other threads while they copy it.
    """

    prompt: tuple[int, ...]
    bound: BoundConfig
    choice: int = 0
    row: int = 0
    path: int = 0
    watch: StopStringWatcher | None = None
    lineage: tuple[Hashable, ...] = ()
    events: deque[Event] | None = field(default_factory=deque)
    trace: list[Event] = field(default_factory=list)
    canvas: HostCanvas = field(default_factory=HostCanvas)
    seen: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    started: float = 0.0
    seconds: float = 0.0
    error: Exception | None = None
    kept: int = 0
    opened: int = 0
    most_steps: int = 0
    initial_masks: int = 0
    revise_from: int = 0
    filled_blocks: int = 0
    parked: bool = False
    until: Until | None = None
    no_room: Unavailable | None = None
    draft: dict[int, Draft] = field(default_factory=dict)
    keeps: int = 0
    lock: RLock = field(default_factory=RLock, repr=False)

    @property
    def done(self) -> bool:
        """True if the row has ended."""
        return self.canvas.reason is not None

    @property
    def pinned(self) -> Sequence[int | None]:
        """The ids that are pinned after the prompt, None where it is open."""
        return self.bound.pinned

    @property
    def ends_pinned(self) -> bool:
        """True if the last position of the answer is pinned."""
        return len(self.pinned) > 0 and self.pinned[-1] is not None

    @property
    def end_ids(self) -> Collection[int]:
        """The ids that end the answer."""
        return self.bound.end_ids

    @property
    def limit(self) -> int:
        """The answer ends before this position."""
        return len(self.prompt) + self.bound.length

    @property
    def open_count(self) -> int:
        """The number of open positions."""
        return sum(kind >= Kind.MASK for kind in self.canvas.kinds)

    @property
    def open_share(self) -> float:
        """The share of the answer that is open, up to its first end id, without what is pinned."""
        kinds = self.canvas.kinds[: first_end(self.canvas.ids, self.canvas.kinds, self.end_ids)]
        still_open = sum(kind >= Kind.MASK for kind in kinds)
        return still_open / max(still_open + kinds.count(Kind.COMMITTED), 1)

    def fill_canvas(self, ids: list[int], kinds: list[Kind]) -> None:
        """Give the row its first canvas."""
        with self.lock:
            self.canvas.fill(ids, kinds, len(self.prompt))
        self.initial_masks = max(self.open_count, 1)
        self.most_steps = step_limit(self.bound.parts, len(ids))

    def announce(self) -> None:
        """Tell the reader the canvas as it is now."""
        self.deliver(self.canvas.opened(self.row, self.ledger.nfe))

    def fork(self, *, choice: int, row: int, path: int) -> RowState:
        """A copy that goes its own way from here, and announces its canvas."""
        twin = copy(self)
        twin.choice, twin.row, twin.path = choice, row, path
        twin.watch = None if self.watch is None else self.watch.fork()
        twin.events = None if self.events is None else deque()
        twin.trace, twin.kept = [], 0
        twin.canvas, twin.ledger = self.canvas.fork(), self.ledger.fork()
        twin.draft, twin.lock = dict(self.draft), RLock()
        if twin.canvas.ids:
            twin.announce()
        return twin

    @property
    def likely(self) -> int:
        """The number of most likely ids that are read at each position."""
        return max(self.keeps, self.bound.config.top_logprobs)

    @property
    def reached(self) -> bool:
        """True if the row has come to the point at which it is parked."""
        return not self.done and self.until is not None and self.until.reached(self)

    def reopen(self, positions: Sequence[int], ids: Sequence[int]) -> None:
        """Open committed positions from outside; they hold `ids` now.

        Nothing is settled any more. A row that has ended goes on: what it left open is open again.
        Rows of one lineage that are opened alike stay of one.
        """
        canvas, number, first = self.canvas, self.ledger.nfe, min(positions)
        if self.lineage:
            self.lineage = (*self.lineage, tuple(positions), tuple(ids))
        if canvas.reason is not None or first < canvas.settled:
            canvas.restart()
            self.watch, self.seen = None if self.watch is None else self.watch.fresh(), 0
            self.announce()
        self.emit(Event("remask", self.row, number, tuple(positions), tuple(ids)))
        self.draft, self.kept, self.revise_from, self.opened = {}, 0, first, first
        self.most_steps = number + step_limit(self.bound.parts, len(canvas.ids))

    def emit(self, event: Event) -> None:
        """Hand an event to the reader of the row and apply it to the host's canvas.

        In this order: who sees that a row is done finds its last event.
        """
        with self.lock:
            self.deliver(event)
            self.canvas.apply(event)

    def deliver(self, event: Event) -> None:
        """Hand over an event that the host's canvas already shows."""
        if self.events is not None:
            self.events.append(event)
        if self.bound.config.trace:
            self.trace.append(event)

    def record(self, step: RowStep) -> None:
        """Bill the row for a step, turn its changes into events, and end it where it has ended."""
        ledger, took_part = self.ledger, step.took_part and not self.done
        self.lineage = ()
        with self.lock:
            ledger.record(step.purpose, step.positions, step.arms, idle=not took_part)
            ledger.staleness = max(ledger.staleness, step.key_age)
            for name, tokens in step.aux.items():
                ledger.record_aux(name, tokens)
            if self.done:
                return
            try:
                cause = self._changed(step) if took_part else None
                if cause is None and step.error is not None:
                    raise step.error
                cause = cause or ("length" if step.filled else self._spent(step))
                if cause is None and ledger.nfe > self.most_steps:
                    raise endless(self.bound.parts, ledger.nfe, self.open_count)
            except Exception as error:  # of a user's part, or an event that cannot follow
                self.finish("error", error)
            else:
                if cause is not None:
                    self.finish(cause)

    def finish(self, cause: str, error: Exception | None = None) -> None:
        """End the row once; one that ends by itself settles all that is filled.

        error: raised where the row failed.
        """
        if self.done:
            return
        self.error, self.lineage, complete = error, (), False
        if cause not in UNSETTLED:
            complete = self._settle(final=True)
            answer, ended = answer_of(self.canvas, self.limit, self.end_ids)
            complete |= ended or (self.ends_pinned and len(answer) == len(self.pinned))
        if self.started:
            self.seconds = time.perf_counter() - self.started
        reason = finish_reason(cause, complete=complete)
        self.emit(Event("done", self.row, self.ledger.nfe, data={"reason": reason}))

    def _changed(self, step: RowStep) -> str | None:
        """Emit the events of a step and settle what no rule will touch again.

        Returns the reason why the row ends with it, None where it goes on.
        """
        number, parts = self.ledger.nfe, self.bound.parts
        self.filled_blocks += step.closed
        if step.opened is not None:
            self.opened = step.opened[0]
            self.emit(Event("block", self.row, number, step.opened))
            self.ledger.record_block(*step.opened)
        require_finite(step.changes, parts, number)
        drawn, top = self.bound.config.temperature > 0, self.bound.config.top_logprobs
        for event in events_of(self.row, number, step.changes, drawn=drawn, top=top):
            self.emit(event)
            self.ledger.changes[event.type] += len(event.pos)
        revisable = 0 if parts.blocks.multi_block else self.opened
        if not parts.whole_row and self._settle(revisable if parts.edit else None):
            return "stop"
        return parts.reasons[step.stopped - 1] if step.stopped else None

    def _settle(self, most: int | None = None, *, final: bool = False) -> bool:
        """Settle what is before the first open position, up to the end id, or what a stop string,
        or the beginning of one, takes away.

        `most`: start of the block that editors may still revise. `final`: nothing follows. Returns
        whether a stop string is complete.
        """
        canvas, watch, front = self.canvas, self.watch, self.canvas.front()
        front = front if most is None else min(front, most)
        if front <= canvas.settled and not (watch and final):
            return False
        answer, ended = answer_of(canvas, min(front, self.limit), self.end_ids)
        found = False
        if watch is not None:
            fresh, self.seen = answer[self.seen :], len(answer)
            found = watch(fresh, final=final or ended)
        if watch is not None and (found or watch.clear < len(answer)):
            front = canvas.prompt + watch.clear
        elif ended:
            front = canvas.prompt + len(answer) + 1
        if front > canvas.settled:
            own = canvas.kinds[canvas.settled : front].count(Kind.COMMITTED)
            self.ledger.record_settled(own)
            self.emit(Event("settle", self.row, self.ledger.nfe, (front,)))
        return found

    def _spent(self, step: RowStep) -> str | None:
        """The reason of a budget that is spent while something is open, or held by an editor."""
        for budget in self.bound.budgets:
            with blaming("stop", budget):
                spent = budget.spent(self.ledger.nfe, time.perf_counter() - self.started)
            if checked_spent(budget, spent) and (self.open_count or step.ongoing):
                return budget.reason  # else the row is full, which the last step's record says
        return None
