"""A client's connection, read by hand: it shall cost the machine as little as can be."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from typing import Any, Final

READ: Final = 65536
SLOW_READ, SLOW_PAUSE = 512, 0.1
"""Bytes that a slow reader takes at a time, and the seconds between."""
DONE: Final = b"[DONE]"


class Broken(Exception):
    """The server has closed a connection in the middle, or sent something that is no HTTP."""


class Connection:
    """One HTTP/1.1 connection, kept for the next request as long as the server keeps it.

    slow: read a little at a time, with pauses
    """

    def __init__(self, host: str, port: int, *, slow: bool = False) -> None:
        self._address, self._slow = (host, port), slow
        self._socket: socket.socket | None = None
        self._buffer = b""
        self._headers: dict[bytes, bytes] = {}

    def close(self) -> None:
        """Leave, whatever the server still sends."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._buffer = None, b""

    async def ask(self, method: str, path: str, body: bytes = b"") -> int:
        """Send a request, and read the answer up to its body; the status. Raises `OSError`,
        `Broken`.
        """
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        head += "Content-Type: application/json\r\n\r\n"
        kept = self._socket is not None
        try:
            answer = await self._send(head.encode() + body)
        except (Broken, ConnectionError):
            if not kept:
                raise
            self.close()  # a kept connection may be closed by the server at any time
            answer = await self._send(head.encode() + body)
        first, *rest = answer.split(b"\r\n")
        pairs = (line.partition(b":") for line in rest if line)
        self._headers = {name.lower(): value.strip() for name, _, value in pairs}
        return int(first.split(b" ", 2)[1])

    async def _send(self, request: bytes) -> bytes:
        """Send a request; the head of its answer."""
        loop = asyncio.get_running_loop()
        if self._socket is None:
            self._socket = socket.socket()
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._slow:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_READ)
            await loop.sock_connect(self._socket, self._address)
        await loop.sock_sendall(self._socket, request)
        return await self._until(b"\r\n\r\n")

    async def body(self) -> bytes:
        """The whole body of an answer. Raises `OSError`, `Broken`."""
        return b"".join([piece async for piece in self.pieces()])

    async def pieces(self) -> AsyncGenerator[bytes]:
        """The body of an answer as it comes. Raises `OSError`, `Broken`."""
        if self._headers.get(b"transfer-encoding") == b"chunked":
            while size := int(await self._until(b"\r\n"), 16):
                yield await self._exactly(size)
                await self._exactly(2)
            await self._until(b"\r\n")
        elif size := int(self._headers.get(b"content-length", 0)):
            yield await self._exactly(size)
        if self._headers.get(b"connection", b"").lower() == b"close":
            self.close()

    async def frames(self) -> AsyncGenerator[dict[str, Any]]:
        """The server-sent events of an answer, up to `[DONE]`. Raises `OSError`, `Broken`."""
        rest, done = b"", False
        async for piece in self.pieces():
            *events, rest = (rest + piece).split(b"\n\n")
            for event in events:
                _, found, data = event.partition(b"data: ")
                done = done or data == DONE
                if found and not done:
                    yield json.loads(data)
        if not done or rest:
            raise Broken("a stream without an end")

    async def _until(self, mark: bytes) -> bytes:
        """The bytes up to a mark, which is taken as well."""
        while mark not in self._buffer:
            await self._read()
        found, _, self._buffer = self._buffer.partition(mark)
        return found

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._read()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    async def _read(self) -> None:
        assert self._socket is not None
        if self._slow:
            await asyncio.sleep(SLOW_PAUSE)
        size = SLOW_READ if self._slow else READ
        data = await asyncio.get_running_loop().sock_recv(self._socket, size)
        if not data:
            raise Broken("the server has closed the connection")
        self._buffer += data
