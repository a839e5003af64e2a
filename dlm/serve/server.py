"""`run`: one server in one process, from the socket to its orderly end.

A signal begins to drain it: `/ready` and new requests get 503, connections that nobody uses are
closed, and what runs may end. A second signal ends the process at once. uvicorn's own handlers are
left out: they stop listening at the first signal, and raise it again at the end.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Protocol

import uvicorn
from fastapi import FastAPI

from dlm.errors import InvalidRequest
from dlm.serve.logs import configure_logs
from dlm.serve.protocol import http_protocol
from dlm.serve.settings import ServerSettings

if TYPE_CHECKING:
    import dlm

LOG: Final = logging.getLogger("dlm.serve")
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
COLLECTIONS: Final = (5_000, 10, 10)
"""New objects after which garbage is looked for, that of about 100 requests. See `gc`."""
LOOKED_AFTER: Final = 0.1
"""Seconds between two looks at what still runs, and at the engine's thread."""
IDLE: Final = 65
"""Seconds that a connection may wait for its next request: longer than clients and proxies do."""
TELLING: Final = 2
"""Seconds for telling clients that their requests are cut off."""
CLOSING: Final = 20
"""Seconds that the end may take once nothing runs any more."""
STOPPED, FAILED = 0, 1  # exit codes
BY_SIGNAL: Final = 128
"""Added to the number of the signal that has ended the process at once."""


class Watched(Protocol):
    """The part of `Service` that this module needs."""

    running: int
    waiting: int
    alive: bool

    def drain(self) -> None:
        """Refuse new requests."""
        ...

    def cut_off(self) -> None:
        """End what still runs."""
        ...

    def give_up(self) -> None:
        """Tell whoever waits for an engine that is not alive that nothing comes."""
        ...


def listening_socket(settings: ServerSettings) -> socket.socket:
    """A socket that is bound to the server's address and does not listen yet.

    Bound before a model is loaded, it tells early of an address that cannot be had. Raises
    `InvalidRequest` for such an address, and for one that strangers could use.
    """
    settings.require_guarded()
    host, port = settings.host, settings.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InvalidRequest("host", f"{host!r} is no address of this machine: {error}") from None
    family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _cannot_listen(settings, error) from None
    return bound


def run(engine: dlm.Engine, settings: ServerSettings, listener: socket.socket | None = None) -> int:
    """Serve an engine until a signal, or until its thread dies or hangs; the exit code.

    0: stopped by a signal, once what ran had ended or had had `settings.drain` seconds. 1: it could
    not start, or the engine's thread has died or hangs. A second signal ends the process with 128
    and its number. `listener`: from `listening_socket`, as which this raises `InvalidRequest`.
    """
    from dlm.serve.app import create_app

    listener = listener or listening_socket(settings)
    app = create_app(engine, settings)
    return serve(app, app.state.service, settings, listener)


def serve(app: FastAPI, service: Watched, settings: ServerSettings, listener: socket.socket) -> int:
    """Serve an app that answers for `service`; otherwise as `run`."""
    configure_logs(settings.log_level)
    server = Server(app, service, settings, listener)
    try:
        listener.listen(server.config.backlog)
    except OSError as error:
        raise _cannot_listen(settings, error) from None
    try:
        server.run(sockets=[listener])
    except SystemExit:  # of uvicorn: the app could not start, as the log tells
        return FAILED
    return server.code


class Server(uvicorn.Server):
    """uvicorn with a drain of its own and a watch on the engine.

    service: the state of the engine
    code: of the process when it has ended
    """

    def __init__(
        self, app: FastAPI, service: Watched, settings: ServerSettings, listener: socket.socket
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=http_protocol(settings.stall),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=IDLE,
                timeout_graceful_shutdown=1,
            )
        )
        self.service, self.settings, self.code = service, settings, STOPPED
        self._url = url_of(settings.host, listener)
        self._draining: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals in the event loop, in place of uvicorn's handlers.

        Other threads than the main one cannot: there the server runs until `stop` is called.
        """
        main = threading.current_thread() is threading.main_thread()
        former = {number: signal.getsignal(number) for number in SIGNALS if main}
        loop = asyncio.get_running_loop()
        for number in former:
            loop.add_signal_handler(number, self.stop, number)
        try:
            yield
        finally:
            for number, handler in former.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    async def main_loop(self) -> None:
        """Say that the server is ready; then watch until it is to end."""
        gc.collect()
        gc.freeze()  # what starting has made stays, and looking through it takes half a second
        gc.set_threshold(*COLLECTIONS)
        with suppress(OSError):  # nobody reads stdout any more
            print(f"dlm: serving on {self._url}", flush=True)
        LOG.info("serving", extra={"url": self._url})
        ticks = asyncio.create_task(super().main_loop())
        while not self.should_exit:
            await asyncio.sleep(LOOKED_AFTER)
            if not self.service.alive:
                self._end_within(CLOSING)
                self.service.give_up()
                LOG.critical("the engine's thread has died or hangs: the server ends")
                await self._told()
                self.code, self.should_exit = FAILED, True
        await ticks

    def stop(self, number: int) -> None:
        """Begin to drain; the second time end the process at once."""
        if self._draining is not None:
            LOG.warning("a second signal: the server ends at once")
            sys.stdout.flush()
            os._exit(BY_SIGNAL + number)
        self._end_within(self.settings.drain + CLOSING)
        self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        """Let what runs end, for a while, and then leave the main loop."""
        LOG.info("asked to stop", extra={"running": self.service.running})
        self.service.drain()
        for connection in list(self.server_state.connections):
            connection.shutdown()  # at once if it is idle, else after its answer
        clock = asyncio.get_running_loop().time
        until = clock() + self.settings.drain
        while self._is_busy() and clock() < until and not self.should_exit:
            await asyncio.sleep(LOOKED_AFTER / 2)
        if self._is_busy():
            cut = {"running": self.service.running, "waiting": self.service.waiting}
            LOG.warning("requests are cut off: their time is over", extra=cut)
            self.service.cut_off()
            await self._told()
        self.should_exit = True

    async def _told(self) -> None:
        """Wait until all requests are over, for `TELLING` seconds at most."""
        clock = asyncio.get_running_loop().time
        until = clock() + TELLING
        while self.server_state.tasks and clock() < until:
            await asyncio.sleep(LOOKED_AFTER / 2)

    def _is_busy(self) -> bool:
        tasks = self.server_state.tasks
        return bool(self.service.running or self.service.waiting or tasks)

    def _end_within(self, seconds: float) -> None:
        """End the process by force if it has not ended by itself by then."""
        timer = threading.Timer(seconds, os._exit, (FAILED,))
        timer.daemon = True
        timer.start()


def url_of(host: str, listener: socket.socket) -> str:
    """The address of a server for clients on this machine, with the port that it has got."""
    port = listener.getsockname()[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _cannot_listen(settings: ServerSettings, error: OSError) -> InvalidRequest:
    """The error for an address that cannot be had."""
    place = f"{settings.host} port {settings.port}"
    if error.errno == errno.EADDRINUSE:
        rule = "is used by another program: give another one, or 0 for any free one"
        return InvalidRequest("port", f"{place} {rule}")
    param = "port" if error.errno == errno.EACCES else "host"
    return InvalidRequest(param, f"cannot listen on {place}: {error.strerror}")
