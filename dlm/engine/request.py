"""A submitted prompt: its choices while they are decoded, and the generations they become."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from threading import RLock
from types import TracebackType
from typing import Protocol, Self

import torch
from torch import Tensor

from dlm.config import BoundConfig
from dlm.core import Event, Kind, ModelInfo
from dlm.engine.generation import Generation, answer_of, logprobs_of, stats_of
from dlm.engine.row import RowState
from dlm.engine.scheduler import Scheduler
from dlm.errors import InvalidRequest
from dlm.text import Text
from dlm.text.stream import StopStringWatcher


class Driver(Protocol):
    """The members of an engine that a request uses."""

    info: ModelInfo
    text: Text | None
    scheduler: Scheduler
    lock: RLock

    def step(self) -> None:
        """Advance every live row."""
        ...


class Request:
    """A submitted prompt, with one `RowState` for each of its n choices.

    Waiting for it (`wait`, `result`, `events`) drives the engine, all its other requests included.
    """

    def __init__(self, engine: Driver, prompt: tuple[int, ...], bound: BoundConfig) -> None:
        self._engine, self._bound = engine, bound
        self.states = [self._ticket(prompt, choice) for choice in range(bound.config.n)]

    def _ticket(self, prompt: tuple[int, ...], choice: int) -> RowState:
        strings, text = self._bound.stop_strings, self._engine.text
        inside = bool(self._bound.pinned)
        watch = (
            StopStringWatcher(text, strings, inside=inside)
            if text is not None and strings
            else None
        )
        return RowState(prompt, self._bound, choice, choice, choice, watch)

    @property
    def done(self) -> bool:
        """True if every choice has ended."""
        return all(state.done for state in self.states)

    def wait(self) -> None:
        """Drive the engine until every choice has ended."""
        while not self.done:
            self._engine.step()

    def abort(self) -> None:
        """End what still runs and free its pages at once. What there is stays readable."""
        with self._engine.lock:
            for state in self.states:
                self._engine.scheduler.abort(state)

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
        for state in self.states:
            while state.events:
                yield state.events.popleft()

    def completed(self, event: Event) -> Event:
        """An event as a stream gives it: a `done` together with the answer of its row, unless that
        has failed. Waits for the end of a step that is under way.
        """
        state = next(state for state in self.states if state.choice == event.row)
        if event.type != "done" or state.error is not None:
            return event
        with self._engine.lock:
            return replace(event, result=self._choice(state))

    def ignore_events(self) -> None:
        """Nobody will read the events: do not keep them."""
        for state in self.states:
            state.events = None

    def result(self) -> Generation:
        """Wait, and return the first choice (with all `choices` where there are several)."""
        self.wait()
        self.raise_errors()
        with self._engine.lock:  # the step in which a row ends may not have billed it all
            choices = tuple(self._choice(state) for state in self.states)
        return replace(choices[0], choices=choices) if len(choices) > 1 else choices[0]

    def shown_ids(self) -> tuple[int, ...]:
        """Ids of the first answer that spell its text and nothing behind it.

        Those of the answer, but for a last token that a stop string cuts: the text before it is
        encoded anew, or left out where no ids spell it.
        """
        answer, text, watch = self.result(), self._engine.text, self.states[0].watch
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
        for state in self.states:
            if state.error is not None:
                raise state.error

    def _decoded(self, ids: Sequence[int]) -> str | None:
        """The text of an answer's ids, None without a tokenizer.

        By themselves, as the tokenizer decodes them; with `infill`, whose texts come back as they
        are, as part of a longer text.
        """
        text = self._engine.text
        if text is None:
            return None
        return text.decode_inside(ids) if self._bound.pinned else text.decode(ids)

    def _choice(self, state: RowState) -> Generation:
        text = self._engine.text
        answer, _ = answer_of(state.canvas, state.limit, state.end_ids)
        shown = self._decoded(answer)
        if isinstance(state.watch, StopStringWatcher) and state.watch.text is not None:
            shown = state.watch.text
            while answer and len(self._decoded(answer[:-1]) or "") >= len(shown):
                answer.pop()
        return Generation(
            text=shown,
            ids=tuple(answer),
            finish_reason=str(state.canvas.reason),
            stats=stats_of(state.ledger, _generated(state, len(answer)), state.seconds),
            prompt_ids=state.prompt,
            canvas=tuple(state.canvas.ids),
            logprobs=logprobs_of(state.canvas, len(answer)),
            holes=()
            if text is None
            else tuple(map(text.decode_inside, _holes(state, len(answer)))),
            trace=tuple(state.trace),
        )


def _generated(state: RowState, count: int) -> int:
    """The number of the first `count` ids of the answer that were not pinned."""
    kinds = state.canvas.kinds[len(state.prompt) : len(state.prompt) + count]
    return sum(kind == Kind.COMMITTED for kind in kinds)


def _holes(state: RowState, count: int) -> Iterator[list[int]]:
    """The ids of each stretch of open positions among the first `count` ids of the answer."""
    start = len(state.prompt)
    for is_open, run in groupby(enumerate(state.pinned), lambda place: place[1] is None):
        places = [at for at, _ in run]
        if is_open:
            yield state.canvas.ids[start + places[0] : start + min(places[-1] + 1, count)]


class Streamed(Protocol):
    """The members of a request that a stream of its events uses."""

    def result(self) -> Generation:
        """Wait, and return the answer."""
        ...

    def abort(self) -> None:
        """End what still runs."""
        ...


class Stream(Iterator[Event]):
    """The events of one answer; the last one, `done`, carries the answer as `event.result`.

    The row is queued when the first event is asked for. Leaving a `with` block, `close`, or letting
    the stream go aborts what still runs and frees its pages.
    """

    def __init__(self, request: Streamed, events: Iterator[Event]) -> None:
        self._request, self._events = request, events

    def __iter__(self) -> Self:
        """The stream itself."""
        return self

    def __next__(self) -> Event:
        """The next event. Raises the error of a row that fails, after its last event."""
        return next(self._events)

    def result(self) -> Generation:
        """The answer, when all events have been taken or are skipped now.

        After `close` it is what there was. Raises the error of a row that has failed.
        """
        for _ in self:
            pass
        return self._request.result()

    def close(self) -> None:
        """Abort what still runs; no event follows."""
        close = getattr(self._events, "close", None)
        if close is not None:
            close()
        self._request.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Streamer(Protocol):
    """Takes ids `[n]` on the CPU: the prompt's first, then the answer's as they settle."""

    def put(self, value: Tensor) -> None:
        """Ids that will not change any more."""
        ...

    def end(self) -> None:
        """Nothing follows."""
        ...


def feed(streamer: Streamer, request: Request) -> None:
    """Drive a request of one choice to its end and tell the streamer.

    `put_draft`, where there is one, gets what stands behind the settled ids after each step, open
    positions left out. A last token that a stop string cuts is put as the ids of the text before
    it, or left out where that text has no such ids.
    """
    (state,) = request.states
    draft = getattr(streamer, "put_draft", None)
    sent, step = 0, 0
    streamer.put(_ids(state.prompt))
    try:
        for event in request.events():
            canvas = state.canvas
            if event.type == "settle":
                answer, _ = answer_of(canvas, min(event.pos[0], state.limit), state.end_ids)
                sent = _put(streamer, answer, sent)
            elif draft is not None and event.step > step:
                step = event.step
                open_end = canvas.ids[canvas.prompt + sent : state.limit]
                kinds = canvas.kinds[canvas.prompt + sent :]
                filled = zip(open_end, kinds, strict=False)
                draft(_ids([token for token, kind in filled if kind <= Kind.COMMITTED]))
        _put(streamer, request.shown_ids(), sent)
    finally:
        streamer.end()


def _put(streamer: Streamer, answer: Sequence[int], sent: int) -> int:
    """Put what is new of an answer; how much has been sent."""
    if len(answer) > sent:
        streamer.put(_ids(answer[sent:]))
    return max(sent, len(answer))


def _ids(values: Sequence[int]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.long)
