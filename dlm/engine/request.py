"""A submitted prompt: its choices while they are decoded, and the generations they become."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from threading import RLock
from typing import Protocol

from dlm.config import BoundConfig
from dlm.core import Event, Kind, ModelInfo
from dlm.engine.admission import Ticket
from dlm.engine.generation import Generation, answer_of, logprobs_of, stats_of
from dlm.engine.scheduler import Scheduler
from dlm.engine.watching import TextWatch
from dlm.errors import InvalidRequest
from dlm.text import Text


class Driver(Protocol):
    """What a request needs of its engine."""

    info: ModelInfo
    text: Text | None
    scheduler: Scheduler
    lock: RLock

    def step(self) -> None:
        """Advance every live row."""
        ...


class Request:
    """What `Engine.submit` returns. One ticket for each of the n choices.

    Waiting for it (`wait`, `result`, `events`) drives the engine, all its other requests included.
    """

    def __init__(self, engine: Driver, prompt: tuple[int, ...], bound: BoundConfig) -> None:
        self._engine, self._bound = engine, bound
        self.tickets = [self._ticket(prompt, choice) for choice in range(bound.config.n)]

    def _ticket(self, prompt: tuple[int, ...], choice: int) -> Ticket:
        strings, text = self._bound.stop_strings, self._engine.text
        inside = bool(self._bound.given)
        watch = TextWatch(text, strings, inside=inside) if text is not None and strings else None
        return Ticket(prompt, self._bound, choice, watch)

    @property
    def done(self) -> bool:
        """Whether every choice has ended."""
        return all(ticket.done for ticket in self.tickets)

    def wait(self) -> None:
        """Drive the engine until every choice has ended."""
        while not self.done:
            self._engine.step()

    def abort(self) -> None:
        """End what still runs and free its pages at once. What there is stays readable."""
        with self._engine.lock:
            for ticket in self.tickets:
                self._engine.scheduler.abort(ticket)

    def events(self) -> Iterator[Event]:
        """The events of all choices as they happen; `done` carries the choice's answer.

        Raises the error of a row that fails, after its last event.
        """
        while True:
            done = self.done
            yield from map(self.completed, self.pending())
            if done:
                return self.raise_errors()
            self._engine.step()

    def pending(self) -> Iterator[Event]:
        """The events that nobody has taken yet, without waiting for more or for answers."""
        for ticket in self.tickets:
            while ticket.events:
                yield ticket.events.popleft()

    def completed(self, event: Event) -> Event:
        """An event as a stream gives it: a `done` together with the answer of its row, unless that
        has failed. Waits for the end of a step that is under way.
        """
        ticket = next(ticket for ticket in self.tickets if ticket.choice == event.row)
        if event.type != "done" or ticket.error is not None:
            return event
        with self._engine.lock:
            return replace(event, result=self._choice(ticket))

    def ignore_events(self) -> None:
        """Nobody will read the events: do not keep them."""
        for ticket in self.tickets:
            ticket.events = None

    def result(self) -> Generation:
        """Wait, and return the first choice (with all `choices` where there are several)."""
        self.wait()
        self.raise_errors()
        with self._engine.lock:  # the step in which a row ends may not have billed it all
            choices = tuple(self._choice(ticket) for ticket in self.tickets)
        return replace(choices[0], choices=choices) if len(choices) > 1 else choices[0]

    def shown_ids(self) -> tuple[int, ...]:
        """Ids of the first answer that spell its text and nothing behind it.

        Those of the answer, but for a last token that a stop string cuts: the text before it is
        encoded anew, or left out where no ids spell it.
        """
        answer, text, watch = self.result(), self._engine.text, self.tickets[0].watch
        if text is None or watch is None or answer.text == self._decoded(answer.ids):
            return answer.ids
        whole = answer.ids[: watch.clear]
        rest = (answer.text or "")[len(self._decoded(whole) or "") :]
        try:
            spelled = (*whole, *text.encode_inside(rest))
        except InvalidRequest:
            return whole
        return spelled if self._decoded(spelled) == answer.text else whole

    def raise_errors(self) -> None:
        """Raise the error of the first row that has failed."""
        for ticket in self.tickets:
            if ticket.error is not None:
                raise ticket.error

    def _decoded(self, ids: Sequence[int]) -> str | None:
        """The text of an answer's ids, None without a tokenizer.

        By themselves, as the tokenizer decodes them; with `infill`, whose texts come back as they
        are, as part of a longer text.
        """
        text = self._engine.text
        if text is None:
            return None
        return text.decode_inside(ids) if self._bound.given else text.decode(ids)

    def _choice(self, ticket: Ticket) -> Generation:
        text = self._engine.text
        answer, _ = answer_of(ticket.canvas, ticket.limit, ticket.end_ids)
        shown = self._decoded(answer)
        if isinstance(ticket.watch, TextWatch) and ticket.watch.text is not None:
            shown = ticket.watch.text
            while answer and len(self._decoded(answer[:-1]) or "") >= len(shown):
                answer.pop()
        return Generation(
            text=shown,
            ids=tuple(answer),
            finish_reason=str(ticket.canvas.reason),
            stats=stats_of(ticket.ledger, _generated(ticket, len(answer)), ticket.seconds),
            prompt_ids=ticket.prompt,
            canvas=tuple(ticket.canvas.ids),
            logprobs=logprobs_of(ticket.canvas, len(answer)),
            holes=()
            if text is None
            else tuple(map(text.decode_inside, _holes(ticket, len(answer)))),
            trace=tuple(ticket.trace),
        )


def _generated(ticket: Ticket, count: int) -> int:
    """How many of the first `count` ids of the answer were not given."""
    kinds = ticket.canvas.kinds[len(ticket.prompt) : len(ticket.prompt) + count]
    return sum(kind == Kind.COMMITTED for kind in kinds)


def _holes(ticket: Ticket, count: int) -> Iterator[list[int]]:
    """What stands in each stretch of open positions among the first `count` ids of the answer."""
    start = len(ticket.prompt)
    for is_open, run in groupby(enumerate(ticket.given), lambda place: place[1] is None):
        places = [at for at, _ in run]
        if is_open:
            yield ticket.canvas.ids[start + places[0] : start + min(places[-1] + 1, count)]
