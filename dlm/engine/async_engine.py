"""`AsyncEngine`: the engine for asyncio programs.

Two threads work beside the event loop: one binds requests (tokenizing, parts, checks) and queues
them in the order of the calls, the other drives the steps of all.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Self

from dlm.config import GenerationConfig
from dlm.config.checks import require_integer
from dlm.core import Event
from dlm.core.canvas import Mailbox
from dlm.engine.engine import Engine
from dlm.engine.generation import Generation
from dlm.engine.request import Request, check_deltas
from dlm.text.prompts import Prompt, one_prompt


class AsyncEngine:
    """Wraps an `Engine` for asyncio; requests of all tasks are decoded together.

    The names and values of options and the form of a prompt are checked when a method is called.
    The rest (tokenizing, binding parts to the model, a place in the queue) is done aside, and its
    errors are raised where the request is awaited. A cancelled task frees its rows within one step.
    A reader who is `max_events` events of a row behind gets one `open` event in place of these,
    with the canvas as it is then. `close` (or `async with`) ends the threads.
    """

    def __init__(self, engine: Engine, *, max_events: int = 1024) -> None:
        require_integer("max_events", max_events, 2)
        self.engine, self.max_events = engine, max_events
        self._binder = ThreadPoolExecutor(1, "dlm-bind")
        self._wake = threading.Condition()  # guards what follows
        self._running: dict[AsyncRequest, Request] = {}
        self._listeners: dict[Callable[[], object], Callable[[], bool]] = {}  # tell: has news
        self._driver: threading.Thread | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def submit(self, prompt: Prompt, **options: Any) -> AsyncRequest:
        """Take one prompt and give its handle at once; it is decoded whether awaited or not.

        Options as in `Engine.submit`. Raises `InvalidRequest` for what can be checked at once and
        `RuntimeError` when the engine is closed; other errors where the handle is awaited.
        """
        request = AsyncRequest(self, prompt, options)
        request._begin()
        return request

    async def generate(self, prompt: Prompt, **options: Any) -> Generation:
        """Answer one prompt. Options and errors as in `Engine.submit`."""
        request = AsyncRequest(self, prompt, options, events=False)
        job = request._begin()
        try:
            return await request.result()
        finally:
            job.cancel()  # nobody else waits for it
            await request.abort()

    def stream(self, prompt: Prompt, **options: Any) -> AsyncStream:
        """The events of one prompt's choices as they happen; the `done` of each carries its answer.

        Options and errors as in `submit`; the request is bound and queued when the first event is
        asked for. A row that fails raises its error after its last event.
        """
        return AsyncStream(AsyncRequest(self, prompt, options))

    async def close(self) -> None:
        """Stop driving. What runs is aborted; what is not queued yet raises `RuntimeError`."""
        await asyncio.to_thread(self._close)

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the engine is closed")

    def _queue(self, handle: AsyncRequest, request: Request) -> None:
        """Queue what was bound for a handle, or end it if that has been aborted."""
        with self._wake:
            self._check_open()
            if not handle.aborted:
                self.engine.enqueue(request)
                self._running[handle] = request
                if self._driver is None:
                    self._driver = threading.Thread(target=self._drive, name="dlm", daemon=True)
                    self._driver.start()
                self._wake.notify()
                return
        request.abort()

    def _drive(self) -> None:
        """The driving thread: step while anything runs, and tell those who have news."""
        while True:
            with self._wake:
                self._running = {h: r for h, r in self._running.items() if not r.done}
                self._tell()  # another thread may have driven some to their end
                while not self._closed and not self._running:
                    self._wake.wait()
                if self._closed:
                    return
                ending = [r for handle, r in self._running.items() if handle.aborted]
            try:
                for request in ending:
                    request.abort()
                if not ending:
                    self.engine.step()
            except Exception as error:  # of the engine itself: nobody shall wait for ever
                with self.engine.lock:
                    self.engine.scheduler.end_all(error)

    def _close(self) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._binder.shutdown()  # what it still has to do finds the engine closed
        if self._driver is not None:
            self._driver.join()
        for request in self._running.values():
            request.abort()
        with self._wake:
            self._running.clear()
            self._tell()

    async def _until(self, has_news: Callable[[], bool]) -> None:
        """Wait until there is news."""
        while True:
            told = asyncio.Event()
            tell = partial(asyncio.get_running_loop().call_soon_threadsafe, told.set)
            with self._wake:
                if has_news():
                    return
                self._listeners[tell] = has_news
            try:
                await told.wait()
            finally:
                with self._wake:
                    self._listeners.pop(tell, None)

    def _tell(self) -> None:
        """Wake the tasks that have news, and no others."""
        with self._wake:
            for tell in [tell for tell, has_news in self._listeners.items() if has_news()]:
                del self._listeners[tell]
                with suppress(RuntimeError):  # of a loop that has been closed
                    tell()


class AsyncRequest:
    """A request that is being decoded, as `AsyncEngine.submit` returns it.

    `await` it for its result. Cancelling a task that waits does not end it; `abort` does. Whatever
    waits for it raises the errors of a prompt or an option that cannot be bound, and `Unavailable`
    of a full queue; `queued` waits for nothing else.
    """

    def __init__(
        self, served: AsyncEngine, prompt: Prompt, options: dict[str, Any], *, events: bool = True
    ) -> None:
        self._config = GenerationConfig.from_options(options)
        self._served, self._prompt, self._keeps_events = served, one_prompt(prompt), events
        self._job: Future[Request] | None = None
        self.aborted = False

    def __await__(self) -> Generator[Any, None, Generation]:
        """The result."""
        return self.result().__await__()

    @property
    def done(self) -> bool:
        """True if every choice has ended, or if it could not be queued."""
        job = self._begin()
        return job.done() and (job.exception() is not None or job.result().done)

    async def queued(self) -> None:
        """Wait for its place in the queue. Raises errors as in `Engine.submit`."""
        await self._bound()

    async def result(self) -> Generation:
        """Wait for the answer (with all its choices). Raises the error of a row that has failed."""
        await self._served._until(lambda: self.done)
        return await asyncio.to_thread(self._begin().result().result)

    async def events(self) -> AsyncIterator[Event]:
        """The events that nobody has taken yet, then new ones; for one reader.

        Raises the error of a row that fails, after its last event.
        """
        request, done = await self._bound(), False
        while not done:
            await self._served._until(
                lambda: request.done or any(state.events for state in request.states)
            )
            done = request.done
            for event in request.pending():
                last = event.type == "done"
                yield await asyncio.to_thread(request.completed, event) if last else event
        request.raise_errors()

    def deltas(self, choice: int = 0) -> AsyncIterator[str]:
        """The text of one choice as it settles, piece by piece, as `Request.deltas` gives it."""
        check_deltas(choice, self._config.n, self._served.engine.text)
        return self._deltas(choice)

    async def _deltas(self, choice: int) -> AsyncIterator[str]:
        reader = (await self._bound()).delta_reader(choice)
        while not reader.ended:
            if delta := reader.read():
                yield delta
            elif not reader.ended:
                await self._served._until(lambda: reader.has_news)

    async def abort(self) -> None:
        """End what still runs and free its pages, also if the task that waits for it is cancelled.

        What there is stays readable.
        """
        self.aborted, served = True, self._served
        with served._wake:
            request = served._running.get(self)
        if request is not None and not request.done:
            await served._until(lambda: self not in served._running)

    def _begin(self) -> Future[Request]:
        """Have it bound and queued in the binding thread, once."""
        if self._job is None:
            with self._served._wake:
                self._served._check_open()
                self._job = self._served._binder.submit(self._bind)
            self._job.add_done_callback(lambda _: self._served._tell())
        return self._job

    def _bind(self) -> Request:
        self._served._check_open()
        request = self._served.engine.prepare(self._prompt, self._config)
        for state in request.states:
            mailbox = Mailbox(state.canvas, self._served.max_events)
            state.events = mailbox if self._keeps_events else None
        self._served._queue(self, request)
        return request

    async def _bound(self) -> Request:
        job = self._begin()
        await self._served._until(job.done)
        return job.result()


class AsyncStream(AsyncIterator[Event]):
    """The events of all choices of a request, for one task; `done` of each carries its answer.

    Leaving an `async with` block, `aclose`, or cancelling the task that waits aborts what still
    runs.
    """

    def __init__(self, request: AsyncRequest) -> None:
        self._request, self._events = request, self._read()

    async def _read(self) -> AsyncGenerator[Event, None]:
        try:
            async for event in self._request.events():
                yield event
        finally:
            await self._request.abort()

    async def __anext__(self) -> Event:
        """The next event. Raises the error of a row that fails, after its last event."""
        return await anext(self._events)

    async def result(self) -> Generation:
        """The answer (with all its choices), when all events have been taken or are skipped now.

        After `aclose` it is the answer up to then. Raises the error of a row that has failed.
        """
        async for _ in self:
            pass
        return await self._request.result()

    async def aclose(self) -> None:
        """Abort what still runs; no event follows."""
        await self._events.aclose()
        await self._request.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
