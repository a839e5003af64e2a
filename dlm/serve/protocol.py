"""The HTTP parser of a server, with a bound for what a client may send before its body."""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD: Final = 64 * 1024
"""Bytes of a request line with its headers, as uvicorn's other parser (h11) bounds them."""
MOST_HEADERS: Final = 256


def http_protocol() -> type[asyncio.Protocol]:
    """httptools, bounded, where it is installed; else h11, which has its own bounds."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        return H11Protocol

    class BoundedHttpTools(HttpToolsProtocol):
        """The fast parser, which by itself takes headers, trailers and the like without end.

        quiet: bytes since headers were complete, or a part of a body or its end came
        """

        quiet: int = 0

        def data_received(self, data: bytes) -> None:
            """Parse bytes of the client, and close the connection if they lead nowhere."""
            self.quiet += len(data)
            super().data_received(data)
            if self.quiet > HEAD and not self.transport.is_closing():
                self.send_400_response("The headers are too long.")

        def on_header(self, name: bytes, value: bytes) -> None:
            """Take one header, or trailer."""
            if len(self.headers) >= MOST_HEADERS:
                raise ValueError("too many headers")  # the parser makes it a 400
            super().on_header(name, value)

        def on_headers_complete(self) -> None:
            """Begin a body."""
            self.quiet = 0
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            """Take a part of a body."""
            self.quiet = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            """End a body."""
            self.quiet = 0
            super().on_message_complete()

    return BoundedHttpTools
