"""The HTTP parser of a server, with bounds for the headers of a client and for its pauses."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dlm.serve.errors import error_body

HEAD: Final = 64 * 1024
"""Bytes of a request line with its headers."""
MOST_HEADERS: Final = 256


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's parser of HTTP/1.1, which by itself takes headers, trailers and the like without
    end, and waits for them for ever.

    The gate bounds the size of a body that the app reads, and the pauses in it.

    stall: seconds for all headers of a request, from its first byte or that of the connection on,
        and between two parts of a body that is not read any more (0: no limit)
    quiet: bytes since headers were complete, or a part of a body or its end came
    since: time from which the client is waited for (None: it has sent whole requests alone)
    in_head: the headers of a request have begun and are not complete
    """

    stall: float = 0.0
    quiet: int = 0
    since: float | None = None
    in_head: bool = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a first request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes of the client, and close the connection if they lead nowhere."""
        self.quiet += len(data)
        super().data_received(data)
        if self.quiet > HEAD and not self.transport.is_closing():
            self.send_400_response("the headers are too long")

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.in_head = True
        self._wait()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header, or trailer."""
        if len(self.headers) >= MOST_HEADERS:
            raise ValueError("too many headers")  # the parser makes it a 400
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin a body."""
        self.quiet, self.in_head = 0, False
        self._wait()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self.quiet = 0
        self._wait()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a body."""
        self.quiet, self.since = 0, None
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, and close the connection."""
        self._refuse(400, msg, "bad_request")

    def _wait(self) -> None:
        """Wait for the client from now on."""
        self.since = self.loop.time()
        if self.stall and self._timer is None:
            self._timer = self.loop.call_later(self.stall, self._look)

    def _look(self) -> None:
        """Close the connection if its client was waited for too long, or look again later."""
        self._timer = None
        if self.since is None or self.transport.is_closing():
            return
        left = self.since + self.stall - self.loop.time()
        if self.cycle is not None and not self.cycle.response_complete:
            left = self.stall  # the gate looks after its body, or the client after its answer
        if left > 0:
            self._timer = self.loop.call_later(left, self._look)
        elif self.in_head:
            told = f"the headers of the request were not complete after {self.stall:g} seconds"
            self._refuse(408, told, "request_timeout")
        else:  # it has begun no request, or has got its answer
            self.transport.close()

    def _refuse(self, status: int, message: str, code: str) -> None:
        """Answer what has not become a request, and close the connection."""
        body = json.dumps(error_body(message, code=code)).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def http_protocol(stall: float) -> type[asyncio.Protocol]:
    """The parser with its limit of time: uvicorn makes one for each connection."""
    return type("BoundedHttp", (BoundedHttp,), {"stall": stall})
