"""Searches over HTTP: the job of one, and the frames of its stream."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from starlette.types import Scope

import dlm
from dlm.serve.facts import facts
from dlm.serve.jobs import Job
from dlm.serve.prompts import Prompt
from dlm.serve.search_fields import PARAMS, within
from dlm.serve.service import Service
from dlm.serve.streams import KEEP_ALIVE, Shape, failure

MOST_PROGRESS: Final = 0.99
"""The progress of a search that has not ended, at most."""


class SearchJob(Job):
    """The search of one body. It holds a place in the queue for each row that it decodes or keeps.

    events: send its candidates
    """

    def __init__(
        self,
        service: Service,
        prompt: Prompt,
        options: Mapping[str, Any],
        names: Mapping[str, str],
        asked: dlm.SearchOptions,
        *,
        events: bool = False,
    ) -> None:
        super().__init__(service, [prompt], [options], {**names, **PARAMS}, events=events)
        bounded = within(asked, service.settings.max_search_nfe, service.places.most)
        self._asked = replace(bounded, words=prompt.words)
        self.events = events
        self._budget = float(dict(bounded.budget or {})["nfe"])
        self._search: dlm.AsyncSearch | None = None
        self._measured = False

    async def start(self) -> None:
        """Take a place and begin. Raises `ApiError` as `Job.start`."""
        self.service.check_open()
        held = self._take_places(1)
        try:
            job = await asyncio.to_thread(self._prepare)
            search = self._search = self.service.engine.run_search(job)
        except BaseException as error:
            await self.close()
            raise self.fault(error) if isinstance(error, Exception) else error from error
        held.ended, held.more = lambda: int(search.done), lambda: max(search.rows - 1, 0)

    def _prepare(self) -> Any:
        """The search before its first step. Work for a thread of its own."""
        engine, (prompt,), (options,) = self.service.engine.engine, self.prompts, self.options
        config = dlm.GenerationConfig.from_options(options)
        self.lengths = [engine.prepare(prompt.ids, config, events=False).states[0].limit]
        return engine.prepare_search(prompt.asked, self._asked, options)

    @property
    def search(self) -> dlm.AsyncSearch:
        """The search, once it has begun."""
        assert self._search is not None
        return self._search

    @property
    def used(self) -> float:
        """The share of its budget that is spent."""
        return self.search.costs().nfe / self._budget

    async def results(self) -> list[dlm.Generation]:
        """The answer. Raises `ApiError`."""
        try:
            return [await self.found()]
        except Exception as error:
            self.note_failure(error)
            raise self.fault(error) from error

    async def found(self) -> dlm.Generation:
        """The answer, taken into the metrics. Raises the error of a search that has failed."""
        result = await self.search.result()
        answer = result.answer()
        self.count(0, answer)
        self._measure(result)
        return answer

    def _measure(self, result: dlm.SearchResult | None) -> None:
        """Take the search into the metrics, after its answer if it has one."""
        self._measured = True
        tried = () if result is None else result.candidates
        answer = None if result is None else result.best.stats
        self.service.metrics.searched(self.search.costs(), len(tried), self.used, answer)

    async def _measure_rest(self) -> None:
        """Take a search that has failed, or that the client did not wait for, into the metrics."""
        result = None
        with suppress(Exception):  # it has failed, which has been told, or has no answer yet
            result = await self.search.result()
            self.count(0, replace(result.best, finish_reason="abort"))
        self._measure(result)

    def note_failure(self, error: Exception) -> None:
        """Count a failure, unless the request is at fault: it asks for too many rows at a time."""
        if not isinstance(error, dlm.InvalidRequest):
            self.service.metrics.failed()

    def describe(self, scope: Scope) -> None:
        """Tell the access log, with the forwards of all rows and verifiers."""
        super().describe(scope)
        if self._search is not None:
            facts(scope).nfe = math.ceil(self._search.costs().nfe)

    async def wait_for(self, has_news: Callable[[], bool], timeout: float) -> bool:
        """Wait until there is news; False if there was none for so many seconds."""
        return await self.service.engine.wait_for(has_news, timeout)

    async def close(self) -> None:
        """End the search and give the places back."""
        if self._search is not None:
            await self._search.abort()
            if not self._measured:
                await self._measure_rest()
        await super().close()


class SearchStreaming:
    """The frames of a search in a shape: its text when it has ended, before that its candidates as
    events, or the best text so far in place of the one before.
    """

    def __init__(self, job: SearchJob, shape: Shape, *, diffusing: bool = False) -> None:
        self._job, self._shape, self._diffusing = job, shape, diffusing
        self._shown: dlm.Candidate | None = None
        self._told_first = False

    async def frames(self) -> AsyncIterator[bytes]:
        """All frames, those that are ready at a time together; comments keep the line alive."""
        job, seconds, done = self._job, self._job.service.settings.keep_alive, False
        try:
            ready = b"".join(self._shape.begin())
            while not done:
                if ready:
                    yield ready
                elif not await job.wait_for(self._has_news, seconds):
                    yield KEEP_ALIVE
                done = job.search.done  # before its last candidates are read
                ready = b"".join(self._read())
            answer = await job.found()
            self._tell_first()
            yield ready + b"".join((*self._shape.end(0, answer, 0), *self._shape.finish([answer])))
        except Exception as error:
            job.note_failure(error)
            yield failure(job.fault(error))

    def _has_news(self) -> bool:
        """True if there is something to send: a line without news shall be kept alive."""
        search = self._job.search
        if self._diffusing:
            return search.done or search.best is not self._shown
        return search.done or (self._job.events and search.has_events)

    def _read(self) -> Iterator[bytes]:
        """The frames that are ready."""
        search = self._job.search
        if self._job.events:
            for event in search.pending():
                self._tell_first()
                yield from self._shape.event(0, event.to_json())
        elif self._diffusing and search.best is not None and search.best is not self._shown:
            self._shown = search.best
            self._tell_first()
            progress = min(self._job.used, MOST_PROGRESS)
            yield from self._shape.canvas(0, search.best.text, progress)

    def _tell_first(self) -> None:
        """Take the time of the first text into the metrics."""
        if not self._told_first:
            self._told_first = True
            self._job.service.metrics.first_text(self._job.seconds)
