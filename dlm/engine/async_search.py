"""`AsyncSearch`: one search of an `AsyncEngine` and its reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, Any

from dlm.core import Event
from dlm.engine.searching import SearchJob, SearchResult

if TYPE_CHECKING:
    from dlm.engine.async_engine import AsyncEngine


class AsyncSearch:
    """A search that is under way, as `AsyncEngine.start_search` returns it.

    `await` it for its result. Cancelling a task that waits does not end it; `abort` does.
    """

    def __init__(self, served: AsyncEngine, job: SearchJob) -> None:
        self._served, self._job = served, job
        self.aborted = False

    def __await__(self) -> Generator[Any, None, SearchResult]:
        """The result."""
        return self.result().__await__()

    @property
    def done(self) -> bool:
        """True if it has ended."""
        return self._job.done

    async def result(self) -> SearchResult:
        """Wait for the answer. Raises the error of a row that has failed."""
        await self._served._until(lambda: self.done)
        return await asyncio.to_thread(self._job.result)

    async def events(self) -> AsyncIterator[Event]:
        """The events `candidate` that nobody has taken yet, then new ones; for one reader."""
        done = False
        while not done:
            await self._served._until(lambda: self.done or self._job.has_events)
            done = self.done
            for event in self._job.events():
                yield event

    async def abort(self) -> None:
        """End the search within one step and free its pages; `result` has what there is."""
        self.aborted = True
        self._served._nudge()
        await self._served._until(lambda: self.done)
