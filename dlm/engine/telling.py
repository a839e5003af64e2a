"""Telling a ticket what its row did: bills, events, settled text, and why it ended."""

from __future__ import annotations

import math
import time
from typing import Final

from dlm.core import Event, Kind
from dlm.engine.admission import Ticket
from dlm.engine.apply import Op
from dlm.engine.events import events_of
from dlm.engine.generation import answer_of
from dlm.engine.sync import StepReport
from dlm.errors import EngineError, not_finite

MOST_STEPS: Final = (64, 8)
"""A row that takes more than this, so much more for each position, and what its parts' schedules
allow, has no end.
"""


def emit(ticket: Ticket, event: Event) -> None:
    """Hand an event to whoever reads the ticket and apply it to the host's canvas.

    In this order: who sees that a row is done finds its last event.
    """
    deliver(ticket, event)
    ticket.canvas.apply(event)


def deliver(ticket: Ticket, event: Event) -> None:
    """Hand over an event that the host's canvas already shows."""
    mailbox = ticket.events
    if mailbox is not None:
        mailbox.append(event)
    if ticket.bound.config.trace:
        ticket.trace.append(event)


def tell(ticket: Ticket, report: StepReport, row: int) -> None:
    """Bill one row for a step, turn its changes into events, and end it where it has ended."""
    ledger = ticket.ledger
    took_part = report.active[row] and not ticket.done
    ledger.record(report.purposes[row], report.positions[row], report.arms, idle=not took_part)
    ledger.staleness = max(ledger.staleness, report.key_ages[row])
    for name, tokens in report.aux.items():
        ledger.record_aux(name, tokens[row])
    try:
        if took_part:
            _tell_step(ticket, report, row)
    except Exception as error:  # an event that cannot follow what came before
        end(ticket, "error", error)
    if (failed := report.errors[row]) is not None:
        end(ticket, "error", failed)
    if report.filled[row]:
        end(ticket, "length")
    for budget in ticket.bound.budgets:
        spent = budget.spent(ledger.nfe, time.perf_counter() - ticket.started)
        if spent and any(kind >= Kind.MASK for kind in ticket.canvas.kinds):
            end(ticket, budget.reason)  # else the row is full, which the last step's report says
    if ledger.nfe > most_steps(ticket):
        end(ticket, "error", EngineError(f"the row has no end after {ledger.nfe} steps"))


def end(ticket: Ticket, reason: str, error: Exception | None = None) -> None:
    """End a row once.

    `error` is why it failed. A row that ends by itself settles what it has; whatever has ended it,
    it is a `stop` when an end id or a stop string is in the answer, and when the answer reaches
    what is given at its end.
    """
    if ticket.done:
        return
    ticket.error = error
    if reason not in ("abort", "error") and _is_complete(ticket):
        reason = "stop"
    if ticket.started:
        ticket.seconds = time.perf_counter() - ticket.started
    emit(ticket, Event("done", ticket.choice, ticket.ledger.nfe, data={"reason": reason}))


def most_steps(ticket: Ticket) -> int:
    """More steps than any row takes that has an end."""
    base, each = MOST_STEPS
    schedules = (getattr(part, "steps", None) for part in ticket.bound.parts.all())
    planned = sum(steps for steps in schedules if isinstance(steps, int))
    return base + each * len(ticket.canvas.ids) + planned


def _is_complete(ticket: Ticket) -> bool:
    """Settle what is filled and say whether the answer has come to its end."""
    found = _settle(ticket)
    answer, ended = answer_of(ticket.canvas, ticket.limit, ticket.end_ids)
    ended = ended or (ticket.ends_given and len(answer) == len(ticket.given))
    return found or ended or (ticket.watch is not None and ticket.watch((), final=True))


def _tell_step(ticket: Ticket, report: StepReport, row: int) -> None:
    """The events of a step; settle what no rule will touch again."""
    step, changes = ticket.ledger.nfe, report.changes[row]
    if (bounds := report.opened[row]) is not None:
        emit(ticket, Event("block", ticket.choice, step, bounds))
    if any(math.isnan(change.conf) for change in changes if change.op == Op.COMMIT):
        guides = ", ".join(type(guide).__name__ for guide in ticket.bound.parts.guide)
        return end(ticket, "error", not_finite(f" in step {step}", guides))
    for event in events_of(ticket.choice, step, changes):
        emit(ticket, event)
    if not ticket.bound.parts.whole_row and _settle(ticket):
        end(ticket, "stop")
    if stopped := report.stopped[row]:
        end(ticket, ticket.bound.parts.stop[stopped - 1].reason)


def _settle(ticket: Ticket) -> bool:
    """Nothing before the front will change: show it to the watch, up to the answer's end.

    Returns whether the watch has seen all it waits for.
    """
    before, front = ticket.canvas.settled, ticket.canvas.front()
    if front <= before:
        return False
    emit(ticket, Event("settle", ticket.choice, ticket.ledger.nfe, (front,)))
    answer, ended = answer_of(ticket.canvas, min(front, ticket.limit), ticket.end_ids)
    fresh = answer[before - ticket.canvas.prompt :]
    return ticket.watch is not None and ticket.watch(fresh, final=ended)
