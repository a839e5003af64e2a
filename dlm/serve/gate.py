"""The gate: what every HTTP request passes before the app answers it.

From the outside in: `Observe` (request ids, access log, metrics, the last catch of exceptions),
CORS where origins are allowed, `LocalOnly` (web pages of strangers), `ApiKeys`, `BodyLimit`. All
are plain ASGI, so that streams pass unbuffered and are cancelled when a client leaves.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from typing import Final

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dlm.serve.errors import ApiError, answer_to, error_response
from dlm.serve.metrics import Metrics
from dlm.serve.observe import Observe
from dlm.serve.settings import ServerSettings, is_loopback

GUARDED: Final = ("/v1", "/tokenize", "/detokenize", "/tokenizer_info")
"""Paths, with all below them, that need an API key where there are any."""
DISCARDED: Final = 32 * 2**20
"""Bytes of a body too large that are read and dropped, as a client that still sends would not see
the answer."""


def install(app: FastAPI, settings: ServerSettings, metrics: Metrics) -> None:
    """Put the gate in front of an app. The last one added is the outermost."""
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes, stall=settings.stall)
    if settings.api_keys:
        app.add_middleware(ApiKeys, keys=settings.api_keys)
    elif settings.is_local and not settings.insecure:
        app.add_middleware(LocalOnly, origins=settings.allowed_origins)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=("X-Request-Id", "Retry-After"),
        )
    app.add_middleware(Observe, metrics=metrics, log_prompts=settings.log_prompts)


class LocalOnly:
    """Keeps web pages of strangers away from a server that asks for no key.

    A browser on this machine reaches it, and with it every page that is open there: by a request to
    localhost, which carries the page's `Origin`, or by a host name of the page's own that it lets
    point to 127.0.0.1 (DNS rebinding), which the `Host` header shows. It looks at connections that
    have come in at a loopback address alone: another address is bound with `--insecure` only.
    """

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        self.app, self.origins = app, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it with 403."""
        if scope["type"] == "http" and (reason := self._refuses(scope)):
            message = f"{reason}: a server without API keys answers this machine alone"
            refusal = error_response(403, message, "permission_error", None, "forbidden_origin")
            await refusal(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _refuses(self, scope: Scope) -> str:
        """The reason to refuse a request; empty for one that may pass."""
        address = (scope.get("server") or ("", None))[0]
        if not is_loopback(address):
            return ""
        headers = Headers(scope=scope)
        host, origin = headers.get("host"), headers.get("origin")
        if host is not None and not is_loopback(_name_of(host)):  # browsers always send one
            return "the Host header names another host than localhost"
        if origin is None or origin in self.origins or "*" in self.origins:
            return ""
        if origin in (f"http://{host}", f"https://{host}"):
            return ""
        return "the request comes from a web page of another origin (see --allowed-origins)"


class ApiKeys:
    """Lets requests to `GUARDED` paths in that carry one of the keys as a Bearer token.

    Digests of the same length are compared, all of them each time, so that the time tells nothing.
    """

    def __init__(self, app: ASGIApp, keys: tuple[str, ...]) -> None:
        self.app = app
        self._digests = tuple(_digest(key.encode("ascii")) for key in keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it with 401."""
        guarded = scope["type"] == "http" and is_guarded(scope)
        if not guarded or scope["method"] == "OPTIONS" or self._knows(scope):
            await self.app(scope, receive, send)
            return
        refusal = error_response(
            401,
            "the API key is wrong or missing: send it as `Authorization: Bearer KEY`",
            "authentication_error",
            None,
            "invalid_api_key",
            {"WWW-Authenticate": "Bearer"},
        )
        await refusal(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = (values[0] if len(values) == 1 else b"").partition(b" ")
        given = _digest(token.strip())
        matches = [secrets.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == b"bearer" and any(matches)


class BodyLimit:
    """Reads the body of a request whole, up to `limit` bytes; a larger one gets 413.

    The length is counted where no header tells it. A body of which no part comes for `stall`
    seconds (0: no limit) gets 408, however slowly it came before. The app receives the body as one
    message.
    """

    def __init__(self, app: ASGIApp, limit: int, stall: float = 0) -> None:
        self.app, self.limit, self.stall = app, limit, stall

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it with 413 or 408."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        told = headers.get("content-length", "")
        excess = told.isdecimal() and (len(told) > 15 or int(told) > self.limit)
        try:
            if excess and headers.get("expect", "").lower() == "100-continue":
                raise self._too_large()  # the client has not sent it yet
            body = await self._read(receive, excess)
        except ApiError as error:
            await answer_to(error)(scope, receive, send)
            return
        if body is not None:
            await self.app(scope, _replayed(body, receive), send)

    async def _read(self, receive: Receive, excess: bool) -> bytes | None:
        """The body, None if the client leaves. Raises `ApiError` 408, or 413 when the body is over.

        excess: it is too large, as its length tells
        """
        body: list[bytes] = []
        size, more = 0, True
        while more:
            try:
                async with asyncio.timeout(self.stall or None):
                    message = await receive()
            except TimeoutError:
                raise self._too_large() if excess else self._stalled() from None
            if message["type"] != "http.request":
                return None
            chunk, more = message.get("body", b""), message.get("more_body", False)
            size += len(chunk)
            if excess := excess or size > self.limit:
                body.clear()
                more = more and size <= DISCARDED
            else:
                body.append(chunk)
        if excess:
            raise self._too_large()
        return b"".join(body)

    def _too_large(self) -> ApiError:
        message = f"the body of a request may have {self.limit} bytes at most"
        return ApiError(413, message, code="request_too_large", headers={"Connection": "close"})

    def _stalled(self) -> ApiError:
        message = f"no further part of the body has come for {self.stall:g} seconds"
        return ApiError(408, message, code="request_timeout", headers={"Connection": "close"})


def is_guarded(scope: Scope) -> bool:
    """Return True for a path that needs an API key where there are any."""
    path: str = scope["path"]
    return any(path == start or path.startswith(f"{start}/") for start in GUARDED)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that has been read, and then what comes."""
    pending = True

    async def replay() -> Message:
        nonlocal pending
        if pending:
            pending = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _name_of(host: str) -> str:
    """The name in a Host header, without its port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host
