"""The outermost layer of the gate: request ids, access log, metrics, the last catch of faults."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dlm.serve.errors import error_response
from dlm.serve.facts import facts, request_id
from dlm.serve.metrics import OTHER, Metrics

LOG: Final = logging.getLogger("dlm.serve")
ACCESS: Final = logging.getLogger("dlm.access")
REQUEST_ID: Final = re.compile(r"[!-~]{1,128}")
"""An id that a client may give: visible ASCII of bounded length."""
REJECTED: Final[Mapping[int, str]] = MappingProxyType({429: "queue_full", 503: "draining"})
"""Status of an answer to a request that could not be taken now, and the reason in the metrics."""
PROBES: Final = ("/health", "/ready", "/load", "/metrics")
"""Routes that machines ask all the time: their lines are for debugging."""
LONGEST_PATH: Final = 200
"""Characters of a path in the log."""


class Observe:
    """Gives each request its id, logs and counts it, and answers 500 for what nobody has caught.

    While the app lives it also measures the lag of the event loop.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, log_prompts: bool) -> None:
        self.app, self.metrics, self.log_prompts = app, metrics, log_prompts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] == "lifespan":
            watch = asyncio.create_task(self.metrics.watch_loop())
            try:
                await self.app(scope, receive, send)
            finally:
                watch.cancel()
                with suppress(asyncio.CancelledError):
                    await watch
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).get("x-request-id", "")
        facts(scope).id = given if REQUEST_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"
        begun, status, gone = time.perf_counter(), 0, False

        async def receive_and_see() -> Message:
            nonlocal gone
            message = await receive()
            gone = gone or message["type"] == "http.disconnect"
            return message

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id(scope)
            await send(message)

        try:
            await self.app(scope, receive_and_see, send_with_id)
        except Exception:
            level = logging.DEBUG if gone else logging.ERROR  # nobody is there to be answered
            told = {"request_id": request_id(scope)}
            LOG.log(level, "a request failed", exc_info=True, extra=told)
            started, status = status, 499 if gone else 500
            if not started and not gone:  # else the connection is cut, which tells the client
                await _internal_error(scope)(scope, receive, send_with_id)
        finally:
            self._note(scope, status, time.perf_counter() - begun)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request that is over, and write its line; status 499 where the client left."""
        route = getattr(scope.get("route"), "path", OTHER)
        status = status or 499
        self.metrics.responded(scope["method"], route, status, seconds)
        if status in REJECTED and route not in PROBES:
            self.metrics.rejected(REJECTED[status])
        found = facts(scope)
        param, code, kind = found.error or (None, None, None)
        line: dict[str, Any] = {
            "request_id": found.id,
            "method": scope["method"],
            "path": scope["path"][:LONGEST_PATH],
            "status": status,
            "seconds": round(seconds, 4),
            "prompt_tokens": found.prompt_tokens,
            "answer_tokens": found.answer_tokens,
            "nfe": found.nfe,
            "finish_reasons": found.finish_reasons,
            "seed": found.seed,
            "param": param,
            "code": code,
            "type": kind,
        }
        if self.log_prompts:
            line |= {"prompts": found.prompts, "answers": found.answers}
        level = logging.DEBUG if route in PROBES and status < 400 else logging.INFO
        ACCESS.log(level, "a request", extra={k: v for k, v in line.items() if v is not None})


def _internal_error(scope: Scope) -> ASGIApp:
    message = f"the server has failed; its log tells more about request {request_id(scope)}"
    headers = {"x-should-retry": "false"}
    return error_response(500, message, "server_error", None, "internal", headers)
