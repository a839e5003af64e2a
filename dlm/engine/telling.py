"""Telling a ticket what its row did: bills, events, settled text, and why it ended."""

from __future__ import annotations

import math
import time

from dlm.core import Event
from dlm.engine.admission import Ticket
from dlm.engine.apply import Op
from dlm.engine.events import events_of
from dlm.engine.generation import answer_of
from dlm.engine.sync import Change, StepReport
from dlm.errors import EngineError

MOST_STEPS = 64, 8
"""A row that takes more than this, and so much more for each position, has no end."""


def emit(ticket: Ticket, event: Event) -> None:
    """Apply an event to the host's canvas and hand it to whoever reads the ticket."""
    ticket.canvas.apply(event)
    if ticket.events is not None:
        ticket.events.append(event)
    if ticket.bound.config.trace:
        ticket.trace.append(event)


def tell(ticket: Ticket, report: StepReport, row: int) -> None:
    """Bill one row for a step, turn its changes into events, and end it where it has ended."""
    took_part, ledger = report.active[row] and not ticket.done, ticket.ledger
    ledger.record(report.purposes[row], report.positions[row], report.arms, idle=not took_part)
    for name, tokens in report.aux.items():
        ledger.record_aux(name, tokens[row])
    if took_part:
        if (bounds := report.opened[row]) is not None:
            emit(ticket, Event("block", ticket.choice, ledger.nfe, bounds))
        _tell_changes(ticket, report.changes[row])
        if stopped := report.stopped[row]:
            end(ticket, ticket.bound.parts.stop[stopped - 1].reason)
    if report.full[row]:
        end(ticket, "length")
    _bound(ticket)


def end(ticket: Ticket, reason: str, error: Exception | None = None) -> None:
    """End a row once. `error` is why it failed; any other end with an end id is a `stop`."""
    if ticket.done:
        return
    ticket.error = error
    before, front = ticket.canvas.settled, ticket.canvas.front()
    if reason not in ("abort", "error"):
        if front > before:
            _settle(ticket, before, front)
        if ticket.done:
            return
        _, ended = answer_of(ticket.canvas, ticket.limit, ticket.end_ids)
        if ended or (ticket.watch is not None and ticket.watch((), final=True)):
            reason = "stop"
    if ticket.started:
        ticket.seconds = time.perf_counter() - ticket.started
    emit(ticket, Event("done", ticket.choice, ticket.ledger.nfe, data={"reason": reason}))


def _bound(ticket: Ticket) -> None:
    """End a row that does not end by itself: an own rule that undoes what it does, say."""
    base, each = MOST_STEPS
    most = base + each * len(ticket.canvas.ids)
    if ticket.ledger.nfe > most:
        end(ticket, "error", EngineError(f"the row has no end after {most} steps"))


def _tell_changes(ticket: Ticket, changes: list[Change]) -> None:
    """The events of a step; settle what no rule will touch again."""
    step = ticket.ledger.nfe
    if any(math.isnan(change.conf) for change in changes if change.op == Op.COMMIT):
        error = EngineError(f"the model's logits are not finite in step {step}")
        return end(ticket, "error", error)
    for event in events_of(ticket.choice, step, changes):
        emit(ticket, event)
    before, front = ticket.canvas.settled, ticket.canvas.front()
    if front > before and not ticket.bound.parts.whole_row:
        _settle(ticket, before, front)


def _settle(ticket: Ticket, before: int, front: int) -> None:
    """Nothing before `front` will change: show it to the watch, up to the answer's end."""
    emit(ticket, Event("settle", ticket.choice, ticket.ledger.nfe, (front,)))
    answer, ended = answer_of(ticket.canvas, min(front, ticket.limit), ticket.end_ids)
    fresh = answer[before - ticket.canvas.prompt :]
    if ticket.watch is not None and ticket.watch(fresh, final=ended):
        end(ticket, "stop")
