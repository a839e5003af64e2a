"""`AsyncEngine`: the engine for asyncio programs.

Two threads work beside the event loop: one binds requests (tokenizing, parts, checks) and queues
them in the order of the calls, the other drives the steps of all.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Self, TypeVar, TypeVarTuple

from dlm.config.checks import require_integer
from dlm.engine.async_asking import AsyncAsking
from dlm.engine.async_request import AsyncRequest, AsyncStream
from dlm.engine.async_search import AsyncSearch, AsyncSearching
from dlm.engine.engine import Engine
from dlm.engine.generation import Generation
from dlm.engine.request import Request
from dlm.engine.search_job import SearchJob
from dlm.errors import EngineError
from dlm.text.prompts import Prompt

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class AsyncEngine(AsyncAsking, AsyncSearching):
    """Wraps an `Engine` for asyncio; requests of all tasks are decoded together.

    The names and values of options and the form of a prompt are checked when a method is called.
    The rest (tokenizing, binding parts to the model, a place in the queue) is done aside, and its
    errors are raised where the request is awaited. A cancelled task frees its rows within one step.
    A reader who is `max_events` events of a row behind gets one `open` event in place of these,
    with the canvas as it is then. `on_step` is called in the driving thread after each step with
    the positions that it has computed. `close` (or `async with`) ends the threads. Should the
    driving thread die, `alive` is False and whoever waits gets an `EngineError`.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_events: int = 1024,
        on_step: Callable[[int], None] = lambda _: None,
    ) -> None:
        require_integer("max_events", max_events, 2)
        self.engine, self.max_events, self._on_step = engine, max_events, on_step
        self._binder = ThreadPoolExecutor(1, "dlm-bind")
        self._wake = threading.Condition()  # guards what follows
        self._searches: dict[AsyncSearch, SearchJob] = {}
        self._running: dict[AsyncRequest, Request] = {}
        self._listeners: dict[Callable[[], object], Callable[[], bool]] = {}  # tell: has news
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._driver: threading.Thread | None = None
        self._closed = False
        self._over: Exception | None = None  # raised by waits that have no end any more
        self._busy: float | None = None  # time at which the step that runs has begun

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def submit(self, prompt: Prompt, *, events: bool = True, **options: Any) -> AsyncRequest:
        """Take one prompt and give its handle at once; it is decoded whether awaited or not.

        `events` False: nobody will read them. Options as in `Engine.submit`. Raises
        `InvalidRequest` for what can be checked at once and `RuntimeError` when the engine is
        closed; other errors where the handle is awaited.
        """
        request = AsyncRequest(self, prompt, options, events=events)
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

    async def call(
        self, function: Callable[[*Arguments], Result], *arguments: *Arguments
    ) -> Result:
        """Have the driving thread run a function between two steps, with `engine.lock`; its result.

        Functions run in the order of the calls, also while nothing is decoded. Raises the error of
        the function, and `RuntimeError` when the engine is closed before it has begun. A task that
        is cancelled withdraws a function that has not begun.
        """
        job: Future[Result] = Future()
        with self._wake:
            self._check_open()
            self._calls.append((job, partial(function, *arguments)))
            self._start()
        try:
            await self._until(job.done)
        finally:
            job.cancel()  # nobody else waits for it
        return job.result()

    @property
    def alive(self) -> bool:
        """False once the driving thread has died of something unexpected, or was given up."""
        return not isinstance(self._over, EngineError)

    @property
    def busy_seconds(self) -> float:
        """Seconds since the step or the function that runs has begun; 0 while none does."""
        begun = self._busy
        return 0.0 if begun is None else time.monotonic() - begun

    def give_up(self, reason: str) -> None:
        """Stop waiting for a driving thread that hangs: `alive` is False, and whoever waits gets an
        `EngineError` with the reason. The thread itself cannot be ended.
        """
        self._end(EngineError(reason))

    async def close(self) -> None:
        """Stop driving. What runs is aborted; what is not queued or has not begun yet raises
        `RuntimeError`.
        """
        await asyncio.to_thread(self._close)

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the engine is closed")
        if self._over is not None:
            raise self._over

    def _queue(self, handle: AsyncRequest, request: Request) -> None:
        """Queue what was bound for a handle, or end it if that has been aborted."""
        with self._wake:
            self._check_open()
            if not handle.aborted:
                self.engine.enqueue(request)
                self._running[handle] = request
                self._start()
                return
        request.abort()

    def _start(self) -> None:
        """Let the driving thread know that there is work."""
        if self._driver is None:
            self._driver = threading.Thread(target=self._drive, name="dlm", daemon=True)
            self._driver.start()
        self._wake.notify()

    def _drive(self) -> None:
        """The driving thread. Those who wait are told whatever ends it but `close`."""
        try:
            while self._advance():
                pass
        except BaseException as error:
            over = EngineError(f"the driving thread has died of {type(error).__name__}: {error}")
            over.__cause__ = error
            with suppress(BaseException), self.engine.lock:
                self.engine.scheduler.end_all(over)
            self._end(over)
            raise

    def _advance(self) -> bool:
        """Wait for work, run the calls and a step, and tell those who have news; False if closed.

        What another thread has driven to its end is found, too.
        """
        with self._wake:
            self._running = {h: r for h, r in self._running.items() if not r.done}
            self._searches = {h: job for h, job in self._searches.items() if not job.done}
            self._tell()
            while not (self._closed or self._running or self._calls or self._search_goes_on()):
                self._wake.wait(self._patience())
            if self._closed:
                return False
            ending = [r for handle, r in self._running.items() if handle.aborted]
            calls, idle = len(self._calls), not self._running
            searches = list(self._searches.items())
        if calls:
            self._run_calls(calls)
        self._busy = time.monotonic()
        try:
            for request in ending:
                request.abort()
            for handle, job in searches:
                with self.engine.lock:
                    job.abort() if handle.aborted else job.advance()
            if not ending and not (idle and not any(job.runnable for _, job in searches)):
                before = self.engine.scheduler.computed
                self.engine.step()
                self._on_step(self.engine.scheduler.computed - before)
        except Exception as error:  # of the engine itself: nobody shall wait for ever
            with self.engine.lock:
                self.engine.scheduler.end_all(error)
        self._busy = None
        return True

    def _run_calls(self, count: int) -> None:
        """Run the first functions that wait, and tell those who wait for them."""
        for _ in range(count):
            job, function = self._calls.popleft()
            self._busy = time.monotonic()
            if job.set_running_or_notify_cancel():
                try:
                    with self.engine.lock:
                        job.set_result(function())
                except BaseException as error:  # raised where the call is awaited
                    job.set_exception(error)
        self._tell()

    def _close(self) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._binder.shutdown()  # what it still has to do finds the engine closed
        if self._driver is not None and self.alive:
            self._driver.join()
        for request in self._running.values():
            request.abort()
        for job in self._searches.values():  # none where a step that hangs has the lock
            with self.engine.lock:
                job.abort()
        self._end(RuntimeError("the engine is closed"))

    def _end(self, over: Exception) -> None:
        """Nothing is driven any more: refuse the calls that wait, and wake everybody."""
        with self._wake:
            self._over = self._over or over
            self._running.clear()
            self._searches.clear()
            for job, _ in self._calls:
                if job.set_running_or_notify_cancel():
                    job.set_exception(over)
            self._calls.clear()
            self._tell()

    async def _until(self, has_news: Callable[[], bool]) -> None:
        """Wait until there is news, which is looked for under a lock that all share.

        Raises the error of `has_news`, and that of an engine whose end leaves it without news.
        """
        while True:
            told = asyncio.Event()
            tell = partial(asyncio.get_running_loop().call_soon_threadsafe, told.set)
            with self._wake:
                if has_news():
                    return
                if self._over is not None:
                    raise self._over
                self._listeners[tell] = has_news
            try:
                await told.wait()
            finally:
                with self._wake:
                    self._listeners.pop(tell, None)

    def _tell(self) -> None:
        """Wake the tasks that have news, and no others."""
        with self._wake:
            over = self._over is not None
            for tell in [t for t, has_news in self._listeners.items() if over or _woken(has_news)]:
                del self._listeners[tell]
                with suppress(RuntimeError):  # of a loop that has been closed
                    tell()


def _woken(has_news: Callable[[], bool]) -> bool:
    """True if there is news, or an error, which is raised where it is waited for."""
    try:
        return has_news()
    except Exception:
        return True
