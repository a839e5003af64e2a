"""`RowState`: the host's record of one row, and the events and costs of its steps."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from dlm.config import BoundConfig
from dlm.core import Event, Kind
from dlm.core.contracts import checked_spent
from dlm.decode.apply import Op
from dlm.decode.sync import RowStep
from dlm.engine.events import HostCanvas, events_of
from dlm.engine.generation import Ledger, answer_of
from dlm.errors import EngineError, blaming, charge, culprit, is_foreign, not_finite

STEP_LIMIT: Final = (64, 8)
"""The step limit of a row: this many steps, this many for each position, and the steps that its
parts' schedules ask for. A row that takes more is treated as stuck.
"""


def emit(state: RowState, event: Event) -> None:
    """Hand an event to the reader of the row and apply it to the host's canvas.

    In this order: who sees that a row is done finds its last event.
    """
    deliver(state, event)
    state.canvas.apply(event)


def deliver(state: RowState, event: Event) -> None:
    """Hand over an event that the host's canvas already shows."""
    mailbox = state.events
    if mailbox is not None:
        mailbox.append(event)
    if state.bound.config.trace:
        state.trace.append(event)


def record(state: RowState, report: RowStep, row: int) -> None:
    """Bill one row for a step, turn its changes into events, and end it where it has ended."""
    ledger = state.ledger
    took_part = report.active[row] and not state.done
    ledger.record(report.purposes[row], report.positions[row], report.arms, idle=not took_part)
    ledger.staleness = max(ledger.staleness, report.key_ages[row])
    for name, tokens in report.aux.items():
        ledger.record_aux(name, tokens[row])
    try:
        if took_part:
            _record_step(state, report, row)
    except Exception as error:  # an event that cannot follow what came before
        finish(state, "error", error)
    if (failed := report.errors[row]) is not None:
        finish(state, "error", failed)
    if report.filled[row]:
        finish(state, "length")
    try:
        _look_at_budgets(state)
    except Exception as error:  # of a user's budget
        finish(state, "error", error)
    if ledger.nfe > most_steps(state):
        finish(state, "error", _endless(state))


def _endless(state: RowState) -> EngineError:
    """The error of a row that does not end: of the rule that a user wrote, where there is one."""
    left = sum(kind >= Kind.MASK for kind in state.canvas.kinds)
    error = EngineError(
        f"the row has no end after {state.ledger.nfe} steps, {left} positions are open: nothing "
        "was committed there, or MASK, which is never written"
    )
    parts = state.bound.parts
    rules = [("unmask", parts.unmask, "propose"), *(("edit", e, "edit") for e in parts.edit)]
    for kind, part, method in rules:
        if is_foreign(part):
            charge(error, culprit(kind, part, method))
            break
    return error


def _look_at_budgets(state: RowState) -> None:
    """End a row that has spent what it may."""
    for budget in state.bound.budgets:
        with blaming("stop", budget):
            spent = budget.spent(state.ledger.nfe, time.perf_counter() - state.started)
        if checked_spent(budget, spent) and any(k >= Kind.MASK for k in state.canvas.kinds):
            finish(state, budget.reason)  # else the row is full, which the last step's report says


def finish(state: RowState, reason: str, error: Exception | None = None) -> None:
    """End a row once.

    `error` is why it failed. A row that ends by itself settles what it has; whatever has ended it,
    it is a `stop` when an end id or a stop string is in the answer, and when the answer reaches
    what is given at its end.
    """
    if state.done:
        return
    state.error = error
    if reason not in ("abort", "error") and _is_complete(state):
        reason = "stop"
    if state.started:
        state.seconds = time.perf_counter() - state.started
    emit(state, Event("done", state.choice, state.ledger.nfe, data={"reason": reason}))


def most_steps(state: RowState) -> int:
    """More steps than any row takes that has an end."""
    base, each = STEP_LIMIT
    schedules = (getattr(part, "steps", None) for part in state.bound.parts.all())
    planned = sum(steps for steps in schedules if isinstance(steps, int))
    each += sum(getattr(editor, "post_steps", 0) for editor in state.bound.parts.edit)
    return base + each * len(state.canvas.ids) + planned


def _is_complete(state: RowState) -> bool:
    """Settle what is filled and say whether the answer has come to its end."""
    found = _settle(state, final=True)
    answer, ended = answer_of(state.canvas, state.limit, state.end_ids)
    return found or ended or (state.ends_pinned and len(answer) == len(state.pinned))


def _record_step(state: RowState, report: RowStep, row: int) -> None:
    """The events of a step; settle what no rule will touch again."""
    step, changes = state.ledger.nfe, report.changes[row]
    if (bounds := report.opened[row]) is not None:
        state.opened = bounds[0]
        emit(state, Event("block", state.choice, step, bounds))
    if any(math.isnan(change.conf) for change in changes if change.op == Op.COMMIT):
        parts = state.bound.parts
        foreign = (part for part in (parts.unmask, *parts.edit) if is_foreign(part))
        others = ", ".join(type(part).__name__ for part in (*parts.guide, *foreign))
        return finish(state, "error", not_finite(f" in step {step}", others))
    for event in events_of(state.choice, step, changes):
        emit(state, event)
    parts = state.bound.parts
    live = 0 if parts.blocks.multi_block else state.opened
    if not parts.whole_row and _settle(state, live if parts.edit else None):
        finish(state, "stop")
    if stopped := report.stopped[row]:
        finish(state, state.bound.parts.stop[stopped - 1].reason)


def _settle(state: RowState, most: int | None = None, *, final: bool = False) -> bool:
    """Nothing before the front will change: settle it, up to the end id or what a stop string, or
    the beginning of one, takes away.

    `most`: where the block starts that editors may still revise. `final`: nothing follows. Returns
    whether a stop string is complete.
    """
    canvas, watch, front = state.canvas, state.watch, state.canvas.front()
    front = front if most is None else min(front, most)
    if front <= canvas.settled and not (watch and final):
        return False
    answer, ended = answer_of(canvas, min(front, state.limit), state.end_ids)
    found = False
    if watch is not None:
        fresh, state.seen = answer[state.seen :], len(answer)
        found = watch(fresh, final=final or ended)
    if watch is not None and (found or watch.clear < len(answer)):
        front = canvas.prompt + watch.clear
    elif ended:
        front = canvas.prompt + len(answer) + 1
    if front > canvas.settled:
        emit(state, Event("settle", state.choice, state.ledger.nfe, (front,)))
    return found


class StopWatcher(Protocol):
    """Sees newly settled ids and says whether the text is complete."""

    def __call__(self, ids: Sequence[int], *, final: bool) -> bool:
        """Take more ids; True when nothing may follow. `final`: these are the last."""
        ...

    @property
    def clear(self) -> int:
        """The number of ids that may be shown: no stop string takes any of them away."""
        ...

    def fork(self) -> StopWatcher:
        """A watch that has seen the same ids."""
        ...


@dataclass(slots=True, eq=False)
class RowState:
    """One choice of one request: its inputs, and what is known of it while it runs.

    `watch` looks for stop strings, `seen` counts the ids of the answer that it knows. `events` is
    the mailbox, None when nobody will read it; `trace` keeps all events when that was asked for.
    `error`: why the row failed, alone. `kept`: leading positions whose keys are kept for other
    requests. `opened`: the start of the latest block.
    """

    prompt: tuple[int, ...]
    bound: BoundConfig
    choice: int
    watch: StopWatcher | None = None
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

    @property
    def done(self) -> bool:
        """True if the row has ended."""
        return self.canvas.reason is not None

    def begin(self, ids: list[int], kinds: list[Kind]) -> None:
        """The row is admitted with this canvas; its time runs."""
        self.canvas.ids, self.canvas.kinds = ids, kinds
        self.canvas.prompt = self.canvas.settled = len(self.prompt)
        self.started = time.perf_counter()

    def fork(self, choice: int) -> RowState:
        """A copy that goes its own way from here."""
        return RowState(
            self.prompt,
            self.bound,
            choice,
            watch=None if self.watch is None else self.watch.fork(),
            canvas=self.canvas.fork(),
            seen=self.seen,
            ledger=self.ledger.fork(),
            started=self.started,
            opened=self.opened,
        )

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
