"""The scheduler: queues requests, admits rows, runs steps and frees finished rows.

It also tells every request what happened.
"""

from __future__ import annotations

import math
import time
from collections import deque

import torch

from dlm.core import Event, Kind
from dlm.engine.admission import Ticket, new_cohort
from dlm.engine.apply import Op
from dlm.engine.cohort import Cohort
from dlm.engine.events import events_of
from dlm.engine.generation import answer_of
from dlm.engine.iteration import IterationManager
from dlm.engine.sync import Change, StepReport
from dlm.errors import EngineError, InvalidRequest, Unavailable


class Scheduler:
    """Continuous batching over cohorts. `max_rows` bounds the rows of one forward."""

    def __init__(self, manager: IterationManager, *, max_rows: int) -> None:
        self.manager, self.max_rows = manager, max_rows
        self._waiting: deque[Ticket] = deque()
        self._cohorts: list[tuple[Cohort, list[Ticket]]] = []

    @property
    def live(self) -> int:
        """Rows being denoised."""
        return sum(len(tickets) for _, tickets in self._cohorts)

    def check(self, ticket: Ticket) -> None:
        """Raises `InvalidRequest` if the canvas exceeds the model, `Unavailable` if the pool."""
        info, length = self.manager.info, self._length(ticket)
        if length > info.max_length:
            raise InvalidRequest(
                "max_new_tokens",
                f"a prompt of {len(ticket.prompt)} and {ticket.bound.config.max_new_tokens} new "
                f"tokens make a canvas of {length}; the model's limit is {info.max_length}",
            )
        if not self.manager.kv.fits_ever(self._pages(ticket)):
            raise Unavailable(f"a canvas of {length} positions does not fit the key/value budget")

    def submit(self, ticket: Ticket) -> None:
        """Queue a row that `check` accepts."""
        self.check(ticket)
        self._waiting.append(ticket)

    def abort(self, ticket: Ticket) -> None:
        """End a row now, wherever it is, and free its pages."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        if not ticket.done:
            self._end(ticket, "abort")
        self._drop_done()

    def fail(self, error: Exception) -> None:
        """End every row, queued or live, with `error`."""
        self._end_all("error", error)

    def _end_all(self, reason: str, error: Exception | None = None) -> None:
        live = [ticket for _, tickets in self._cohorts for ticket in tickets]
        for ticket in (*self._waiting, *live):
            self._end(ticket, reason, error)
        self._waiting.clear()
        self._drop_done()

    def fork(self, ticket: Ticket, *, choice: int, path: int) -> Ticket:
        """A second row that starts as this live one stands now and draws along `path`.

        The rows share their pages until one of them writes. Raises `Unavailable` when the pool
        could not give the fork pages of its own.
        """
        index = next(i for i, (_, tickets) in enumerate(self._cohorts) if ticket in tickets)
        cohort, tickets = self._cohorts[index]
        at = tickets.index(ticket)
        self.manager.kv.share(cohort.rows.host.pages[at].flatten().tolist())
        child = ticket.fork(choice)
        wider = cohort.select(torch.tensor([*range(len(tickets)), at]))
        wider.rows.path[-1] = path
        self._cohorts[index] = wider, [*tickets, child]
        self._emit(child, child.canvas.opened(choice, child.ledger.nfe))
        return child

    def step(self) -> None:
        """Admit what fits, run steps up to the next sync, and deliver the events."""
        self._admit()
        if not self._cohorts:
            return
        try:
            reports = self.manager.steps([cohort for cohort, _ in self._cohorts])
        except Exception as error:  # out of memory, say: no row knows where it stands
            return self.fail(error)
        except KeyboardInterrupt:
            self._end_all("abort")
            raise
        for (cohort, tickets), steps in zip(self._cohorts, reports, strict=True):
            for report in steps:
                for row, ticket in enumerate(tickets):
                    self._tell(ticket, report, row)
            for ticket in tickets:
                self._bound(ticket)
                if cohort.error is not None:
                    self._end(ticket, "error", cohort.error)
        self._drop_done()

    def _bound(self, ticket: Ticket) -> None:
        """End a row that does not end by itself: an own rule that undoes what it does, say."""
        most = 64 + 8 * len(ticket.canvas.ids)
        if ticket.ledger.nfe > most and not ticket.done:
            self._end(ticket, "error", EngineError(f"the row has no end after {most} steps"))

    def owned_pages(self) -> list[list[int]]:
        """The pages of every live row, for `KVPool.check_integrity`."""
        return [
            pages.flatten().tolist()
            for cohort, _ in self._cohorts
            for pages in cohort.rows.host.pages
        ]

    # admission

    def _length(self, ticket: Ticket) -> int:
        """The canvas, rounded up to whole trained blocks."""
        step = self.manager.info.alignment
        return -(-ticket.limit // step) * step

    def _pages(self, ticket: Ticket) -> int:
        return self.manager.kv.pages_for(self._length(ticket)) * ticket.bound.parts.arms

    def _admit(self) -> None:
        while self._waiting and self.live < self.max_rows:
            ticket = self._waiting[0]
            try:
                pages = self.manager.kv.reserve(self._pages(ticket))
            except Unavailable as error:
                if self.live:
                    return  # it waits for the pages of the rows before it
                self._waiting.popleft()
                self._end(ticket, "error", error)
                continue
            self._waiting.popleft()
            try:
                cohort = new_cohort(ticket, self._length(ticket), pages, self.manager)
                self.manager.admit(cohort)
                self._place(ticket, cohort)
            except Exception as error:  # a user's part that cannot run
                self.manager.kv.release(pages)
                self._end(ticket, "error", error)

    def _place(self, ticket: Ticket, cohort: Cohort) -> None:
        """Join a cohort of the same signature, or found one; announce the canvas."""
        for index, (other, tickets) in enumerate(self._cohorts):
            if other.signature == cohort.signature:
                self._cohorts[index] = Cohort.cat([other, cohort]), [*tickets, ticket]
                break
        else:
            self._cohorts.append((cohort, [ticket]))
        length = int(cohort.rows.host.length[0])
        first = ticket.canvas
        first.ids = cohort.rows.ids[0, :length].tolist()
        first.kinds = [Kind(kind) for kind in cohort.rows.kind[0, :length].tolist()]
        first.prompt = first.settled = len(ticket.prompt)
        ticket.started = time.perf_counter()
        self._emit(ticket, first.opened(ticket.choice, 0))

    # telling

    def _emit(self, ticket: Ticket, event: Event) -> None:
        ticket.canvas.apply(event)
        if ticket.events is not None:
            ticket.events.append(event)
        if ticket.bound.config.trace:
            ticket.trace.append(event)

    def _tell(self, ticket: Ticket, report: StepReport, row: int) -> None:
        """Bill one row for a step, turn its changes into events, and end it where it has ended."""
        took_part = report.active[row] and not ticket.done
        ticket.ledger.record(
            report.purposes[row], report.positions[row], report.arms, idle=not took_part
        )
        if took_part:
            if (bounds := report.opened[row]) is not None:
                self._emit(ticket, Event("block", ticket.choice, ticket.ledger.nfe, bounds))
            self._tell_changes(ticket, report.changes[row])
            if stopped := report.stopped[row]:
                self._end(ticket, ticket.bound.parts.stop[stopped - 1].reason)
        if report.full[row]:
            self._end(ticket, "length")

    def _tell_changes(self, ticket: Ticket, changes: list[Change]) -> None:
        """The events of a step; settle what no rule will touch again."""
        step = ticket.ledger.nfe
        if any(math.isnan(change.conf) for change in changes if change.op == Op.COMMIT):
            error = EngineError(f"the model's logits are not finite in step {step}")
            return self._end(ticket, "error", error)
        for event in events_of(ticket.choice, step, changes):
            self._emit(ticket, event)
        before, front = ticket.canvas.settled, ticket.canvas.front()
        if front > before and not ticket.bound.parts.whole_row:
            self._settle(ticket, before, front)

    def _settle(self, ticket: Ticket, before: int, front: int) -> None:
        """Nothing before `front` will change: show it to the watch, up to the answer's end."""
        self._emit(ticket, Event("settle", ticket.choice, ticket.ledger.nfe, (front,)))
        answer, ended = answer_of(ticket.canvas, min(front, ticket.limit), ticket.end_ids)
        fresh = answer[before - ticket.canvas.prompt :]
        if ticket.watch is not None and ticket.watch(fresh, final=ended):
            self._end(ticket, "stop")

    def _end(self, ticket: Ticket, reason: str, error: Exception | None = None) -> None:
        """End a row once; `error` is why it failed."""
        if ticket.done:
            return
        ticket.error = error
        before, front = ticket.canvas.settled, ticket.canvas.front()
        if error is None and reason != "abort":
            if front > before:
                self._settle(ticket, before, front)
            if not ticket.done and ticket.watch is not None and ticket.watch((), final=True):
                reason = "stop"
        if ticket.done:
            return
        if ticket.started:
            ticket.seconds = time.perf_counter() - ticket.started
        self._emit(ticket, Event("done", ticket.choice, ticket.ledger.nfe, data={"reason": reason}))

    def _drop_done(self) -> None:
        """Free the pages of ended rows and let them leave their cohorts at once."""
        kept = []
        for cohort, tickets in self._cohorts:
            stay = [i for i, t in enumerate(tickets) if not t.done]
            for i, ticket in enumerate(tickets):
                if ticket.done:
                    self.manager.kv.release(cohort.rows.host.pages[i].flatten().tolist())
            if len(stay) == len(tickets):
                kept.append((cohort, tickets))
            elif stay:
                kept.append((cohort.select(torch.tensor(stay)), [tickets[i] for i in stay]))
        self._cohorts = kept
