"""Server-sent events: the frames of a job, and the response that sends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

import dlm
from dlm.serve.answers import dumps
from dlm.serve.errors import ApiError, error_body
from dlm.serve.jobs import Job, disconnected

KEEP_ALIVE: Final = b": keep-alive\n\n"
DONE: Final = b"data: [DONE]\n\n"
HEADERS: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def frame(body: Mapping[str, Any], event: str = "") -> bytes:
    """One server-sent event."""
    name = b"event: " + event.encode() + b"\n" if event else b""
    return name + b"data: " + dumps(body) + b"\n\n"


class Shape(Protocol):
    """The frames of one endpoint; each method gives those of one moment."""

    def begin(self) -> Iterator[bytes]:
        """The first frames of all answers."""
        ...

    def text(self, number: int, delta: str) -> Iterator[bytes]:
        """New text of an answer."""
        ...

    def canvas(self, number: int, shown: str, progress: float) -> Iterator[bytes]:
        """The whole text of an answer as it stands, in place of what was sent before."""
        ...

    def event(self, number: int, event: Mapping[str, Any]) -> Iterator[bytes]:
        """One event of the canvas."""
        ...

    def end(self, number: int, answer: dlm.Generation, sent: int) -> Iterator[bytes]:
        """The last frames of an answer, of whose text `sent` characters were sent."""
        ...

    def finish(self, answers: list[dlm.Generation]) -> Iterator[bytes]:
        """The frames after the last answer."""
        ...


@dataclass(slots=True)
class Row:
    """One answer while it is streamed.

    number: of the answer
    request, choice: its row in the engine
    reader: of its settled text
    sent: characters of it that were sent
    ended: nothing follows
    step: of the last canvas that was sent
    """

    number: int
    request: dlm.Request
    choice: int
    reader: dlm.DeltaReader
    sent: int = 0
    ended: bool = False
    step: int = -1

    @property
    def state(self) -> dlm.RowState:
        """The row as the engine keeps it."""
        return self.request.states[self.choice]


class Streaming:
    """The frames of a job in a shape: deltas, whole canvases (`diffusing`), or events as well."""

    def __init__(
        self,
        job: Job,
        shape: Shape,
        *,
        diffusing: bool = False,
        events: bool = False,
        hole: bool = False,
    ) -> None:
        self._job, self._shape, self._events = job, shape, events
        self._diffusing, self._answers = diffusing, dict[int, dlm.Generation]()
        self._rows = [
            Row(number, request, choice, request.delta_reader(choice))
            for number, (request, choice) in enumerate(
                (request, choice) for request in job.requests for choice in range(job.n)
            )
        ]
        self._told_first = False

    async def frames(self) -> AsyncIterator[bytes]:
        """All frames, those that are ready at a time together; comments keep the line alive."""
        try:
            yield b"".join(self._shape.begin())
            while live := [row for row in self._rows if not row.ended]:
                ready = b""
                for row in live:
                    ready += await self._read(row)
                if ready:
                    yield ready
                elif not await self._wait(live):
                    yield KEEP_ALIVE
            answers = [self._answers[number] for number in sorted(self._answers)]
            yield b"".join(self._shape.finish(answers))
        except Exception as error:
            self._job.service.metrics.failed()
            yield failure(self._job.fault(error))
        yield DONE

    async def _wait(self, live: list[Row]) -> bool:
        """Wait until a row has something to send; False when it is time for a comment."""
        seconds = self._job.service.settings.keep_alive
        return await self._job.wait_for(lambda: any(map(self._has_news, live)), seconds)

    def _has_news(self, row: Row) -> bool:
        if self._diffusing:
            return row.state.ledger.nfe != row.step or row.state.done
        return row.reader.has_news or bool(self._events and row.state.events)

    async def _read(self, row: Row) -> bytes:
        """The frames that a row has ready."""
        out: list[bytes] = []
        if self._events:
            for event in row.request.pending(row.choice):
                out += self._shape.event(row.number, self._told(event))
        if self._diffusing:
            ended = row.state.done
            shot = row.request.frame(row.choice)
            if shot.step != row.step:
                row.step = shot.step
                out += self._shape.canvas(row.number, shot.text, shot.progress)
        else:
            delta = row.reader.read()
            ended, row.sent = row.reader.ended, row.sent + len(delta)
            if delta:
                out += self._shape.text(row.number, delta)
        if out and not self._told_first:
            self._told_first = True
            self._job.service.metrics.first_text(self._job.seconds)
        if ended:
            row.ended = True
            answer = self._answers[row.number] = await self._job.answer(row.number)
            out += self._shape.end(row.number, answer, row.sent)
        return b"".join(out)

    def _told(self, event: dlm.Event) -> dict[str, Any]:
        """An event as JSON, with the text of each id."""
        body, text = event.to_json(), self._job.service.text
        if text is not None and event.ids:
            body["text"] = [text.decode_inside([token]) for token in event.ids]
        return body


def failure(error: ApiError) -> bytes:
    """The frame of an error in the middle of a stream."""
    return frame(error_body(error.message, error.type, error.param, error.code))


class EventStream(Response):
    """Sends frames as they come. When the client leaves, or all is sent, `close` frees the job.

    Frames are read when the client has taken those before: whoever reads slowly gets longer ones.
    """

    media_type = "text/event-stream"

    def __init__(self, job: Job, frames: AsyncIterator[bytes]) -> None:
        super().__init__(None, 200, HEADERS)
        del self.headers["content-length"]
        self._job, self._frames = job, frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all, or stop when the client has left."""
        work = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            else:
                self._job.service.metrics.disconnected()
        finally:
            for task in (work, gone):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task
            self._job.describe(scope)
            await asyncio.shield(self._job.close())

    async def _send(self, send: Send) -> None:
        head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(head)
        async for body in self._frames:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
