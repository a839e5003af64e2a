"""The verb `search` of engines for asyncio, and `AsyncSearch`, the handle of one search."""

from __future__ import annotations

import asyncio
import threading
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Generator
from math import inf
from typing import TYPE_CHECKING, Any

from dlm.core import Event
from dlm.engine.search_job import SearchJob
from dlm.engine.searching import Candidate, SearchCosts, SearchOptions, SearchResult
from dlm.text.prompts import Prompt

if TYPE_CHECKING:
    from dlm.engine.engine import Engine


class AsyncSearch:
    """A search that is under way, as `AsyncEngine.start_search` returns it.

    `await` it for its result. Cancelling a task that waits does not end it; `abort` does.
    """

    def __init__(self, served: AsyncSearching, job: SearchJob) -> None:
        self._served, self._job = served, job
        self.aborted = False

    def __await__(self) -> Generator[Any, None, SearchResult]:
        """The result."""
        return self.result().__await__()

    @property
    def done(self) -> bool:
        """True if it has ended."""
        return self._job.done

    @property
    def best(self) -> Candidate | None:
        """The answer with the highest score so far; None before the first one."""
        return self._job.best

    @property
    def rows(self) -> int:
        """The number of rows that it holds: decoded ones and parked ones; 0 once it has ended."""
        return 0 if self.done else self._job.rows

    @property
    def has_events(self) -> bool:
        """True if there are events that nobody has taken yet."""
        return self._job.has_events

    def costs(self) -> SearchCosts:
        """The costs so far."""
        return self._job.costs()

    def pending(self) -> list[Event]:
        """The events `candidate` that nobody has taken yet."""
        return self._job.events()

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


class AsyncSearching:
    """Gives an engine for asyncio the verb `search`, and a wait for news of several readers."""

    engine: Engine
    _wake: threading.Condition
    _searches: dict[AsyncSearch, SearchJob]

    @abstractmethod
    def _check_open(self) -> None:
        """Raise where the engine takes nothing any more."""

    @abstractmethod
    def _start(self) -> None:
        """Let the driving thread know that there is work."""

    @abstractmethod
    async def _until(self, has_news: Callable[[], bool]) -> None:
        """Wait until there is news."""

    async def search(self, prompt: Prompt, search: Any = "best_of", **options: Any) -> SearchResult:
        """Answer one prompt by a search, as `Engine.search` does; others are decoded beside it.

        A cancelled task ends it. `on_improve` is called in the driving thread.
        """
        handle = await self.start_search(prompt, search, **options)
        try:
            return await handle
        finally:
            await asyncio.shield(handle.abort())

    async def start_search(
        self, prompt: Prompt, search: Any = "best_of", **options: Any
    ) -> AsyncSearch:
        """Begin a search; its handle. Options and errors as in `Engine.search`."""
        given, rest = SearchOptions.taken(search, options)
        job = await asyncio.to_thread(self.engine.prepare_search, prompt, given, rest)
        return self.run_search(job)

    def run_search(self, job: SearchJob) -> AsyncSearch:
        """Drive a prepared search; its handle."""
        handle = AsyncSearch(self, job)
        job.wake = self._nudge
        with self._wake:
            self._check_open()
            self._searches[handle] = job
            self._start()
        return handle

    async def wait_for(self, has_news: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until there is news, say of one of several readers; False after `timeout` seconds.

        `has_news` is called between steps, also in the driving thread: it must be quick, and wait
        for no lock. Raises its error, and that of an engine that is closed or has died meanwhile.
        """
        try:
            async with asyncio.timeout(timeout) as limit:
                await self._until(has_news)
        except TimeoutError:
            if not limit.expired():
                raise
            return False
        return True

    def _search_goes_on(self) -> bool:
        """True if a search has rows to decode, a verdict to look at, or is to end."""
        return any(handle.aborted or job.can_move for handle, job in self._searches.items())

    def _patience(self) -> float | None:
        """Seconds after which a search that waits for its verifier is out of time."""
        left = min((job.seconds_left for job in self._searches.values()), default=inf)
        return None if left == inf else min(left, threading.TIMEOUT_MAX)

    def _nudge(self) -> None:
        """Let the driving thread look at its searches."""
        with self._wake:
            self._wake.notify()
