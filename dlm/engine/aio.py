"""`AsyncEngine`: the engine for asyncio programs. One thread drives the steps of all requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any, Self

from dlm.core import Event
from dlm.engine.engine import Engine, Prompt
from dlm.engine.generation import Generation
from dlm.engine.request import Request


class AsyncEngine:
    """Wraps an `Engine` for asyncio; requests of all tasks are decoded together.

    A cancelled task frees its rows within one step. The driving thread starts with the first
    request; `close` (or `async with`) ends it.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._wake = threading.Condition()
        self._waiting: dict[Request, tuple[asyncio.AbstractEventLoop, asyncio.Event]] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        """Nothing to prepare."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    async def generate(self, prompt: Prompt, **options: Any) -> Generation:
        """Answer one prompt. Options and errors as in `Engine.submit`."""
        request = self.engine.submit(prompt, **options)
        request.ignore_events()
        try:
            async for _ in self._news(request):
                pass
            return request.result()
        finally:
            await self._abort(request)

    async def stream(self, prompt: Prompt, **options: Any) -> AsyncIterator[Event]:
        """The events of one prompt's choices as they happen.

        Options and errors as in `Engine.submit`; a row that fails raises its error at its end.
        """
        request = self.engine.submit(prompt, **options)
        try:
            async for _ in self._news(request):
                for event in request.pending():
                    yield event
            request.result()
        finally:
            await self._abort(request)

    async def close(self) -> None:
        """Stop driving; requests that still run end as aborted."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._wake:
            self._closed = True
            for request, (loop, news) in self._waiting.items():
                request.abort()
                loop.call_soon_threadsafe(news.set)
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()

    async def _news(self, request: Request) -> AsyncIterator[None]:
        """Yield after every step that may have brought news, and once when all is over."""
        news = asyncio.Event()
        with self._wake:
            if self._closed:
                raise RuntimeError("the engine is closed")
            self._waiting[request] = asyncio.get_running_loop(), news
            if self._thread is None:
                self._thread = threading.Thread(target=self._drive, name="dlm", daemon=True)
                self._thread.start()
            self._wake.notify()
        try:
            while not request.done:
                await news.wait()
                news.clear()
                yield
            yield
        finally:
            with self._wake:
                self._waiting.pop(request, None)

    async def _abort(self, request: Request) -> None:
        """Free what still runs. The engine may be in a step, which the event loop must not await.

        A second cancellation does not keep the pages: the thread that aborts goes on.
        """
        if not request.done:
            await asyncio.shield(asyncio.to_thread(request.abort))

    def _drive(self) -> None:
        """The thread: step while anybody waits, and tell all who wait."""
        while True:
            with self._wake:
                while not self._closed and all(request.done for request in self._waiting):
                    self._tell_all()  # another thread may have driven them to their end
                    self._wake.wait()
                if self._closed:
                    return
            try:
                self.engine.step()
            except Exception as error:  # of the engine itself: nobody shall wait for ever
                with self.engine.lock:
                    self.engine.scheduler.end_all(error)
            with self._wake:
                self._tell_all()

    def _tell_all(self) -> None:
        for loop, news in self._waiting.values():
            loop.call_soon_threadsafe(news.set)
