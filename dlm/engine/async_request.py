"""`AsyncRequest` and `AsyncStream`: one request of an `AsyncEngine` and its readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self

from dlm.config import GenerationConfig
from dlm.core import Event
from dlm.core.canvas import Mailbox
from dlm.engine.generation import Generation
from dlm.engine.readers import MASK, DeltaReader, SnapshotReader, check_choice
from dlm.engine.request import Request
from dlm.text.prompts import Prompt, one_prompt

if TYPE_CHECKING:
    from dlm.engine.async_engine import AsyncEngine


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

    async def queued(self) -> Request:
        """Wait for its place in the queue; the request as it is decoded.

        Raises errors as in `Engine.submit`.
        """
        return await self._bound()

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

    def deltas(self, choice: int = 0, hole: int | None = None) -> AsyncIterator[str]:
        """The text of one choice as it settles, piece by piece, as `Request.deltas` gives it.

        A hole that the request does not have is refused with the first piece.
        """
        check_choice("deltas", choice, self._config.n, self._served.engine.text)
        return self._deltas(choice, hole)

    async def _deltas(self, choice: int, hole: int | None) -> AsyncIterator[str]:
        reader = (await self._bound()).delta_reader(choice, hole)
        while not reader.ended:
            if delta := reader.read():
                yield delta
            elif not reader.ended:
                await self._served._until(lambda: reader.has_news)

    def delta_reader(self, choice: int = 0, hole: int | None = None) -> DeltaReader:
        """A reader as of `Request.delta_reader`, for `wait_for`.

        Raises `RuntimeError` before `queued` was awaited.
        """
        return self._queued_request().delta_reader(choice, hole)

    def snapshot_reader(self, choice: int = 0, mask: str = MASK) -> SnapshotReader:
        """A reader as of `Request.snapshot_reader`, for `wait_for`.

        Raises `RuntimeError` before `queued` was awaited.
        """
        return self._queued_request().snapshot_reader(choice, mask)

    async def wait_for(self, has_news: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait as `AsyncEngine.wait_for` does."""
        return await self._served.wait_for(has_news, timeout)

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

    def _queued_request(self) -> Request:
        job = self._begin()
        if not job.done():
            raise RuntimeError("a request is read after `queued` was awaited")
        return job.result()

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
