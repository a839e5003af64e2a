"""`AsyncEngine`: the engine for asyncio programs. One thread drives the steps of all requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Generator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from dlm.config import GenerationConfig
from dlm.core import Event
from dlm.engine.engine import Engine
from dlm.engine.generation import Generation
from dlm.engine.request import Request
from dlm.text.prompts import Prompt

Listener = tuple[asyncio.AbstractEventLoop, asyncio.Event]
"""Who waits for news: its loop, and what is set there."""


class AsyncEngine:
    """Wraps an `Engine` for asyncio; requests of all tasks are decoded together.

    Options are checked when a method is called, before anything is awaited. A cancelled task frees
    its rows within one step. The driving thread starts with the first request; `close` (or
    `async with`) ends it.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._wake = threading.Condition()
        self._running: dict[Request, list[Listener]] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        """Nothing to prepare."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    def submit(self, prompt: Prompt, **options: Any) -> AsyncRequest:
        """Queue one prompt and give its handle at once; it is decoded whether awaited or not.

        Options and errors as in `Engine.submit`.
        """
        return AsyncRequest(
            self, self._begin(self.engine.prepare(prompt, GenerationConfig.from_options(options)))
        )

    async def generate(self, prompt: Prompt, **options: Any) -> Generation:
        """Answer one prompt. Options and errors as in `Engine.submit`."""
        request = self.engine.prepare(prompt, GenerationConfig.from_options(options))
        request.ignore_events()
        self._begin(request)
        try:
            return await self._result(request)
        finally:
            await abort_aside(request)

    def stream(self, prompt: Prompt, **options: Any) -> AsyncStream:
        """The events of one prompt's choices as they happen; the `done` of each carries its answer.

        Options and errors as in `Engine.submit`; the row is queued when the first event is asked
        for. A row that fails raises its error after its last event.
        """
        request = self.engine.prepare(prompt, GenerationConfig.from_options(options))
        return AsyncStream(request, self._stream(request))

    async def close(self) -> None:
        """Stop driving; requests that still run end as aborted."""
        await asyncio.to_thread(self._close)

    async def _stream(self, request: Request) -> AsyncIterator[Event]:
        self._begin(request)
        try:
            async for event in self._events(request):
                yield event
        finally:
            await abort_aside(request)

    def _begin(self, request: Request) -> Request:
        """Queue a request and see to it that it is driven."""
        with self._wake:
            if self._closed:
                raise RuntimeError("the engine is closed")
            self.engine.enqueue(request)
            self._running[request] = []
            if self._thread is None:
                self._thread = threading.Thread(target=self._drive, name="dlm", daemon=True)
                self._thread.start()
            self._wake.notify()
        return request

    async def _result(self, request: Request) -> Generation:
        async for _ in self._news(request):
            pass
        return await asyncio.to_thread(request.result)

    async def _events(self, request: Request) -> AsyncIterator[Event]:
        """Yield the events that nobody has taken yet, then new ones. Raises errors of rows."""
        async for _ in self._news(request):
            for event in request.pending():
                last = event.type == "done"
                yield await asyncio.to_thread(request.completed, event) if last else event
        request.raise_errors()

    async def _news(self, request: Request) -> AsyncIterator[None]:
        """Yield after every step that may have brought news, and once when all is over."""
        listener = asyncio.get_running_loop(), asyncio.Event()
        with self._wake:
            listeners = self._running.get(request, [])  # none: it is over
            listeners.append(listener)
        try:
            while not request.done:
                await listener[1].wait()
                listener[1].clear()
                yield
            yield
        finally:
            with self._wake:
                listeners.remove(listener)

    def _close(self) -> None:
        with self._wake:
            self._closed = True
            for request in self._running:
                request.abort()
            self._tell_all()
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()

    def _drive(self) -> None:
        """The thread: step while anything runs, and tell all who wait."""
        while True:
            with self._wake:
                self._tell_all()  # another thread may have driven some to their end
                while not self._closed and not self._running:
                    self._wake.wait()
                if self._closed:
                    return
            try:
                self.engine.step()
            except Exception as error:  # of the engine itself: nobody shall wait for ever
                with self.engine.lock:
                    self.engine.scheduler.end_all(error)

    def _tell_all(self) -> None:
        """Tell who waits that there may be news, and forget what has ended."""
        ended = [request for request in self._running if request.done]
        for loop, news in (one for listeners in self._running.values() for one in listeners):
            with suppress(RuntimeError):  # of a loop that has been closed
                loop.call_soon_threadsafe(news.set)
        for request in ended:
            del self._running[request]


class AsyncRequest:
    """A request that is being decoded, as `AsyncEngine.submit` returns it.

    `await` it for its result. Cancelling a task that waits does not end it; `abort` does.
    """

    def __init__(self, served: AsyncEngine, request: Request) -> None:
        self._served, self._request = served, request

    def __await__(self) -> Generator[Any, None, Generation]:
        """The result."""
        return self.result().__await__()

    @property
    def done(self) -> bool:
        """True if every choice has ended."""
        return self._request.done

    async def result(self) -> Generation:
        """Wait for the answer (with all its choices). Raises the error of a row that has failed."""
        return await self._served._result(self._request)

    def events(self) -> AsyncIterator[Event]:
        """The events that nobody has taken yet, then what comes; for one reader."""
        return self._served._events(self._request)

    async def abort(self) -> None:
        """End what still runs and free its pages. What there is stays readable."""
        await abort_aside(self._request)


class AsyncStream(AsyncIterator[Event]):
    """The same for asyncio: the events of all choices of a request, for one task.

    The `done` of each choice carries its answer. Leaving an `async with` block, `aclose`, or
    cancelling the task that waits aborts what still runs.
    """

    def __init__(self, request: Request, events: AsyncIterator[Event]) -> None:
        self._request, self._events = request, events

    def __aiter__(self) -> Self:
        """The stream itself."""
        return self

    async def __anext__(self) -> Event:
        """The next event. Raises the error of a row that fails, after its last event."""
        return await anext(self._events)

    async def result(self) -> Generation:
        """The answer (with all its choices), when all events have been taken or are skipped now.

        After `aclose` it is what there was. Raises the error of a row that has failed.
        """
        async for _ in self:
            pass
        return self._request.result()

    async def aclose(self) -> None:
        """Abort what still runs; no event follows."""
        close = getattr(self._events, "aclose", None)
        if close is not None:
            await close()
        await abort_aside(self._request)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


async def abort_aside(request: Request) -> None:
    """Free what still runs. The engine may be in a step, which the event loop must not await.

    A second cancellation does not keep the pages: the thread that aborts goes on.
    """
    if not request.done:
        await asyncio.shield(asyncio.to_thread(request.abort))
