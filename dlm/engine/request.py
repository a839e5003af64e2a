"""A submitted prompt: its choices while they are decoded, and the readers of their answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from threading import RLock
from typing import Protocol, Self

import torch
from torch import Tensor

from dlm.config import BoundConfig
from dlm.core import Event, Kind
from dlm.engine.generation import (
    Generation,
    Handle,
    answer_of,
    generation_of,
    shown_ids,
)
from dlm.engine.readers import MASK, DeltaReader, SnapshotReader, check_choice
from dlm.engine.row import RowState
from dlm.engine.scheduler import Scheduler
from dlm.text import Text
from dlm.text.stream import StopStringWatcher


class Driver(Protocol):
    """The members of an engine that a request uses."""

    text: Text | None
    scheduler: Scheduler
    lock: RLock

    def step(self) -> None:
        """Advance every live row."""
        ...


def stop_watcher(bound: BoundConfig, text: Text | None) -> StopStringWatcher | None:
    """A search for the stop strings, None where there are none."""
    if text is None or not bound.stop_strings:
        return None
    return StopStringWatcher(text, bound.stop_strings, inside=bool(bound.pinned))


class Request:
    """A submitted prompt, with one `RowState` for each of its n choices.

    Waiting for it (`wait`, `result`, `events`, `deltas`) drives the engine, all its other requests
    included.
    """

    def __init__(self, engine: Driver, prompt: tuple[int, ...], bound: BoundConfig) -> None:
        self._engine, self._bound = engine, bound
        self.states = [
            RowState(prompt, bound, choice, choice, choice, stop_watcher(bound, engine.text))
            for choice in range(bound.config.n)
        ]

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

    def pending(self, choice: int | None = None) -> Iterator[Event]:
        """The events that nobody has taken yet (of one choice), without waiting for more or for
        answers.
        """
        for state in self.states if choice is None else [self.states[choice]]:
            while state.events:
                try:
                    event = state.events.popleft()
                except IndexError:  # a bounded mailbox has just been emptied for a snapshot
                    break
                yield event

    def ended(self, choice: int) -> bool:
        """True if a choice has ended."""
        return self.states[choice].done

    def has_events(self, choice: int) -> bool:
        """True if there are events of a choice that nobody has taken yet."""
        return bool(self.states[choice].events)

    def answer(self, choice: int) -> Generation:
        """The answer of a choice that has ended, without waiting for a step that is under way.

        Raises the error of a row that has failed.
        """
        state = self.states[choice]
        if state.error is not None:
            raise state.error
        with state.lock:
            return generation_of(state, self._engine.text)

    def completed(self, event: Event) -> Event:
        """An event as a stream gives it: a `done` together with the answer of its row, unless that
        has failed. Waits for the end of a step that is under way.
        """
        state = next(state for state in self.states if state.row == event.row)
        if event.type != "done" or state.error is not None:
            return event
        with self._engine.lock:
            return replace(event, result=generation_of(state, self._engine.text))

    def deltas(self, choice: int = 0, hole: int | None = None) -> Iterator[str]:
        """The text of one choice as it settles, piece by piece; all pieces together are the `text`
        of its `Generation`, or with `hole` that hole of `infill` (`Generation.holes[hole]`).

        What was given never changes. Every call gives a reader of its own, from the beginning of
        the answer; events are not taken from anybody. Raises `InvalidRequest` at once for a choice
        or a hole that the request does not have and for an engine without a tokenizer; the error of
        a row that fails, after the text that it has settled.
        """
        return self._deltas(self.delta_reader(choice, hole))

    def _deltas(self, reader: DeltaReader) -> Iterator[str]:
        while not reader.ended:
            if delta := reader.read():
                yield delta
            elif not reader.ended:
                self._engine.step()

    def delta_reader(self, choice: int = 0, hole: int | None = None) -> DeltaReader:
        """A reader of one choice's text that waits for nothing. Raises as `deltas` does."""
        text = check_choice("deltas", choice, len(self.states), self._engine.text)
        return DeltaReader(self.states[choice], text, hole)

    def snapshot_reader(self, choice: int = 0, mask: str = MASK) -> SnapshotReader:
        """A reader of one choice as it stands, `mask` for each open position; it waits for nothing.

        Raises `InvalidRequest` for a choice that the request does not have and for an engine
        without a tokenizer.
        """
        text = check_choice("snapshots", choice, len(self.states), self._engine.text)
        return SnapshotReader(self.states[choice], text, mask)

    def ignore_events(self) -> None:
        """Nobody will read the events: do not keep them."""
        for state in self.states:
            state.events = None

    def result(self) -> Generation:
        """Wait, and return the first choice (with all `choices` where there are several)."""
        self.wait()
        self.raise_errors()
        with self._engine.lock:  # the step in which a row ends may not have billed it all
            choices = tuple(generation_of(state, self._engine.text) for state in self.states)
        return replace(choices[0], choices=choices) if len(choices) > 1 else choices[0]

    def raise_errors(self) -> None:
        """Raise the error of the first row that has failed."""
        for state in self.states:
            if state.error is not None:
                raise state.error


class Stream(Iterator[Event]):
    """The events of one answer; the last one, `done`, carries the answer as `event.result`.

    The row is queued when the first event is asked for. Leaving a `with` block, `close`, or letting
    the stream go aborts what still runs and frees its pages.
    """

    def __init__(self, request: Handle, events: Iterator[Event]) -> None:
        self._request, self._events = request, events

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

    def __exit__(self, *_: object) -> None:
        self.close()


class Streamer(Protocol):
    """Takes ids `[n]` on the CPU: the prompt's first, then the answer's as they settle."""

    def put(self, value: Tensor) -> None:
        """Ids that will not change any more."""
        ...

    def end(self) -> None:
        """Nothing follows."""
        ...


def feed(streamer: Streamer, request: Request, text: Text | None) -> None:
    """Drive a request of one choice to its end and tell the streamer.

    `put_draft`, where there is one, gets the ids after the settled ones, after each step, without
    the open positions. A last token that a stop string cuts is put as the ids of the text before
    it, or left out where that text has no such ids.
    """
    (state,) = request.states
    draft = getattr(streamer, "put_draft", None)
    sent, step = 0, 0
    streamer.put(_ids(state.prompt))
    try:
        for event in request.events():
            canvas, start = state.canvas, len(state.prompt) + sent
            if event.type == "settle":
                most = min(event.pos[0], state.limit)
                sent += _put(streamer, answer_of(canvas, most, state.end_ids, start)[0])
            elif draft is not None and event.step > step:
                step = event.step
                filled = zip(canvas.ids[start : state.limit], canvas.kinds[start:], strict=False)
                draft(_ids([token for token, kind in filled if kind <= Kind.COMMITTED]))
        _put(streamer, shown_ids(state, text)[sent:])
    finally:
        streamer.end()


def _put(streamer: Streamer, fresh: Sequence[int]) -> int:
    """Put new ids of an answer, if there are any; their number."""
    if fresh:
        streamer.put(_ids(fresh))
    return len(fresh)


def _ids(values: Sequence[int]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.long)
