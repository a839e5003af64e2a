"""`Job`: the requests of one body while they are decoded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any, TypeVar

from fastapi import Request
from starlette.types import Receive, Scope

import dlm
from dlm.serve.errors import ApiError, api_error, draining
from dlm.serve.facts import facts
from dlm.serve.prompts import Prompt
from dlm.serve.service import Held, Service

T = TypeVar("T")


class ClientGone(Exception):
    """The client has closed the connection: nobody reads the answer."""


class Job:
    """The prompts of one body in the engine, with a place for each of their answers.

    Choice `c` of prompt `p` is number `p * n + c` of the answers, which end at `stop_texts`. Once
    started, `lengths` are those of the canvases, one a prompt. `close` frees everything.
    """

    def __init__(
        self,
        service: Service,
        prompts: Sequence[Prompt],
        options: Sequence[Mapping[str, Any]],
        names: Mapping[str, str],
        *,
        events: bool = False,
    ) -> None:
        self.service, self.prompts, self.options, self._names = service, prompts, options, names
        self.n = int(options[0].get("n", 1))
        self.seed = int(options[0].get("seed", 0))
        self.created, self.begun, self._events = int(time.time()), time.monotonic(), events
        rules = dlm.GenerationConfig.from_options({"stop": options[0].get("stop")})
        self.stop_texts = rules.stop_strings()
        self.requests: list[dlm.Request] = []
        self.lengths: list[int] = []
        self._answers: dict[int, dlm.Generation] = {}
        self._handles: list[dlm.AsyncRequest] = []
        self._held = ExitStack()
        self._error: ApiError | None = None

    async def start(self) -> None:
        """Take the places and queue all prompts, or none.

        Raises `ApiError`: 400 for the request, 429 without room, 503 when the server is ending.
        """
        self.service.check_open()
        self._take_places(len(self.options) * self.n).ended = self._ended
        try:
            for prompt, options in zip(self.prompts, self.options, strict=True):
                handle = self.service.engine.submit(prompt.ids, events=self._events, **options)
                self._handles.append(handle)
            self.requests = [await handle.queued() for handle in self._handles]
            self.lengths = [request.states[0].limit for request in self.requests]
        except BaseException as error:
            await self.close()
            raise self.fault(error) if isinstance(error, Exception) else error from error

    def _take_places(self, rows: int) -> Held:
        """Hold places for this many rows until `close`. Raises `ApiError` 429 without room."""
        tokens = sum(int(options.get("max_new_tokens") or 0) for options in self.options) * self.n
        return self._held.enter_context(self.service.places.take(rows, tokens))

    def _ended(self) -> int:
        """The number of answers that have ended."""
        return sum(request.ended(c) for request in self.requests for c in range(self.n))

    def fault(self, error: Exception) -> ApiError:
        """An exception of the engine as the client reads it."""
        return api_error(error, self._names)

    def failed(self, error: Exception) -> ApiError:
        """The error that ends a stream in its middle, for the client and for the access log."""
        self._error = self.fault(error)
        return self._error

    @property
    def seconds(self) -> float:
        """The time since the request came."""
        return time.monotonic() - self.begun

    async def results(self) -> list[dlm.Generation]:
        """All answers, in their order. Raises `ApiError`."""
        try:
            answers = [await handle.result() for handle in self._handles]
        except Exception as error:
            self.service.metrics.failed()
            raise self.fault(error) from error
        found = [choice for answer in answers for choice in answer.choices or (answer,)]
        for number, answer in enumerate(found):
            self.count(number, answer)
        return found

    def answer(self, number: int) -> dlm.Generation:
        """One answer that has ended. Raises the error of a row that has failed."""
        request = self.requests[number // self.n]
        answer = request.answer(number % self.n)
        self.count(number, answer)
        return answer

    def count(self, number: int, answer: dlm.Generation) -> None:
        """Take an answer into the metrics."""
        self._answers[number] = answer
        queued = max(self.seconds - answer.stats.seconds, 0.0)
        self.service.metrics.finished(answer, self.seconds, queued)

    def describe(self, scope: Scope) -> None:
        """Tell the access log of a request its numbers, and texts where they are wanted."""
        told, text, error = facts(scope), self.service.text, self._error
        if error is not None:
            told.error = error.param, error.code, error.type
        told.prompt_tokens = sum(len(prompt.ids) for prompt in self.prompts)
        answers = self._answers.values()
        told.answer_tokens = sum(answer.stats.tokens for answer in answers)
        if answers:
            told.nfe = sum(answer.stats.nfe for answer in answers)
            told.finish_reasons = [answer.finish_reason for answer in answers]
            told.seed = self.seed
        if self.service.settings.log_prompts and text is not None:
            told.prompts = [text.decode(prompt.ids) for prompt in self.prompts]
            told.answers = [answer.text or "" for answer in answers]

    async def wait_for(self, has_news: Any, timeout: float) -> bool:
        """Wait until there is news; False if there was none for so many seconds."""
        return await self._handles[0].wait_for(has_news, timeout)

    async def close(self) -> None:
        """Abort what still runs, take it into the metrics and give the places back."""
        for handle in self._handles:
            await handle.abort()
        for number in range(len(self.requests) * self.n):
            if number not in self._answers:
                with suppress(Exception):  # its row has failed, which has been told
                    self.answer(number)
        self._held.close()


async def unless_gone(request: Request, job: Job, work: Coroutine[Any, Any, T]) -> T:
    """The result of work on a job. Its rows are freed in any case; raises as `finished`, or
    `ApiError`.
    """
    try:
        return await finished(work, job.service, request.receive)
    finally:
        job.describe(request.scope)
        await asyncio.shield(job.close())


async def finished(work: Coroutine[Any, Any, T], service: Service, receive: Receive) -> T:
    """The result of work for a client. Raises `ClientGone` if the client leaves before, and
    `ApiError` 503 if the server cuts it off; the work is cancelled then.
    """
    done = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(disconnected(receive))
    cut = asyncio.ensure_future(service.cut.wait())
    try:
        await asyncio.wait({done, gone, cut}, return_when=asyncio.FIRST_COMPLETED)
        if done.done():
            return done.result()
        if gone.done():
            raise ClientGone
        raise draining()
    except (ClientGone, asyncio.CancelledError):
        service.metrics.disconnected()
        raise
    finally:
        for task in (done, gone, cut):
            task.cancel()
        await asyncio.gather(done, gone, cut, return_exceptions=True)


async def disconnected(receive: Receive) -> None:
    """Wait until the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
