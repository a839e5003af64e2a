"""Streams: the events of a request as they happen, and its result as the last thing they give."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Protocol, Self

from dlm.core import Event
from dlm.engine.generation import Generation
from dlm.engine.request import Request


class Streamed(Protocol):
    """What a stream needs of the request whose events it gives."""

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
