"""Server-sent events: the frames of a job, and the response that sends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

import dlm
from dlm.serve.answers import dumps
from dlm.serve.errors import ApiError, error_body
from dlm.serve.jobs import ClientGone, Job, finished

KEEP_ALIVE: Final = b": keep-alive\n\n"
DONE: Final = b"data: [DONE]\n\n"
STALLED: Final = 300.0
"""Seconds for which a client may leave a frame unread."""
HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
)


def frame(body: Mapping[str, Any], event: str = "") -> bytes:
    """One server-sent event."""
    name = b"event: " + event.encode() + b"\n" if event else b""
    return name + b"data: " + dumps(body) + b"\n\n"


class Shape(Protocol):
    """The bodies of one endpoint: a whole one, and the frames of each moment of a stream."""

    def whole(self, answers: list[dlm.Generation]) -> dict[str, Any]:
        """The body of answers that are not streamed."""
        ...

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
    reader: of its settled text, or of the canvas as it stands
    sent: characters of settled text that were sent
    ended: nothing follows
    """

    number: int
    request: dlm.Request
    choice: int
    reader: dlm.DeltaReader | dlm.SnapshotReader
    sent: int = 0
    ended: bool = False

    @property
    def has_news(self) -> bool:
        """True if there is something to send."""
        if self.reader.ended:  # of a hole that has settled before the row ends
            return self.request.ended(self.choice)
        return self.reader.has_news or self.request.has_events(self.choice)


class Streaming:
    """The frames of a job in a shape: deltas, whole canvases, or events as well.

    diffusing: whole canvases in place of deltas
    hole: the text of the first hole alone
    """

    def __init__(
        self, job: Job, shape: Shape, *, diffusing: bool = False, hole: bool = False
    ) -> None:
        self._job, self._shape = job, shape
        self._answers: dict[int, dlm.Generation] = {}
        self._rows: list[Row] = []
        for request in job.requests:
            for choice in range(job.n):
                reader = (
                    request.snapshot_reader(choice)
                    if diffusing
                    else request.delta_reader(choice, 0 if hole else None)
                )
                self._rows.append(Row(len(self._rows), request, choice, reader))
        self._told_first = False

    async def frames(self) -> AsyncIterator[bytes]:
        """All frames, those that are ready at a time together; comments keep the line alive."""
        try:
            ready = b"".join(self._shape.begin())
            while live := [row for row in self._rows if not row.ended]:
                if ready:
                    yield ready
                elif not await self._wait(live):
                    yield KEEP_ALIVE
                ready = b"".join(map(self._read, live))
            answers = [self._answers[row.number] for row in self._rows]
            yield ready + b"".join(self._shape.finish(answers))
        except Exception as error:
            self._job.service.metrics.failed()
            yield failure(self._job.failed(error))

    async def _wait(self, live: list[Row]) -> bool:
        """Wait until a row has something to send; False when it is time for a comment."""
        seconds = self._job.service.settings.keep_alive
        return await self._job.wait_for(lambda: any(row.has_news for row in live), seconds)

    def _read(self, row: Row) -> bytes:
        """The frames that a row has ready."""
        out: list[bytes] = []
        done = row.request.ended(row.choice)  # before its last events and text are read
        for event in row.request.pending(row.choice):
            out += self._shape.event(row.number, self._told(event))
        if not row.reader.ended and row.reader.has_news:
            out += self._text(row)
        if out and not self._told_first:
            self._told_first = True
            self._job.service.metrics.first_text(self._job.seconds)
        if done and row.reader.ended:
            row.ended = True
            answer = self._answers[row.number] = self._job.answer(row.number)
            out += self._shape.end(row.number, answer, row.sent)
        return b"".join(out)

    def _text(self, row: Row) -> Iterator[bytes]:
        """The new text of a row."""
        if isinstance(row.reader, dlm.SnapshotReader):
            shot = row.reader.read()
            return iter(()) if shot.done else self._shape.canvas(row.number, shot.text, shot.filled)
        delta = row.reader.read()
        row.sent += len(delta)
        return self._shape.text(row.number, delta) if delta else iter(())

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
    """Sends frames as they come, and `[DONE]`. `close` frees the job in the end, also when the
    client has left.

    Frames are read when the client has taken those before: whoever reads slowly gets longer ones.
    """

    media_type = "text/event-stream"

    def __init__(self, job: Job, frames: AsyncIterator[bytes]) -> None:
        super().__init__(None, 200, HEADERS)
        del self.headers["content-length"]
        self._job, self._frames = job, frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all, or stop when the client has left; one that is cut off is told so."""
        job = self._job
        try:
            head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(head)
            await finished(self._send(send), job.service, receive)
        except ClientGone:
            pass
        except ApiError as error:
            with suppress(TimeoutError):
                await _send_within(1.0, send, failure(job.failed(error)) + DONE, more=False)
        finally:
            job.describe(scope)
            await asyncio.shield(job.close())

    async def _send(self, send: Send) -> None:
        """Send all frames. Raises `ClientGone` if the client takes nothing for a long time."""
        try:
            async for body in self._frames:
                await _send_within(STALLED, send, body, more=True)
            await _send_within(STALLED, send, DONE, more=False)
        except TimeoutError:
            raise ClientGone from None


async def _send_within(seconds: float, send: Send, body: bytes, *, more: bool) -> None:
    """Send a part of a body. Raises `TimeoutError` if the client does not take it in time."""
    async with asyncio.timeout(seconds):
        await send({"type": "http.response.body", "body": body, "more_body": more})
