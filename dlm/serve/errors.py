"""Errors as OpenAI's clients read them: one JSON shape for all of them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

import dlm
from dlm.errors import shortened
from dlm.serve.facts import facts
from dlm.serve.faults import told_faults

log = logging.getLogger("dlm.serve")

INVALID: Final = "invalid_request_error"
SERVER: Final = "server_error"
BUSY: Final = "rate_limit_error"
LITERAL: Final = " (To end at the text itself"
"""The beginning of advice that is not for clients: `stop` takes texts as they are."""
LONGEST: Final = 600
"""Characters of a message."""
LONGEST_PATH: Final = 120
"""Characters of a path in a message."""


class ErrorDetail(BaseModel):
    """An error as OpenAI's clients read it.

    message: for the user
    type: OpenAI's name of the kind of error
    param: the field at fault
    code: a name for programs
    """

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """The body of an error."""

    error: ErrorDetail


class ApiError(Exception):
    """A request that is answered by an error.

    status: of HTTP
    message: for the user
    type: OpenAI's name of the kind of error
    param: the field at fault
    code: a name for programs
    headers: of the response
    """

    def __init__(
        self,
        status: int,
        message: str,
        type: str = INVALID,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.type = status, shortened(message, LONGEST), type
        self.param, self.code, self.headers = param, code, dict(headers or {})


def refused(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """The error 400 for a field."""
    return ApiError(400, message, param=param, code=code)


def error_body(
    message: str, type: str = INVALID, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The body of an error."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


class ErrorResponse(Response):
    """An error as a response, which notes its field, code and type for the access log as it is
    sent.
    """

    media_type = "application/json"

    def __init__(
        self,
        body: bytes,
        status: int,
        headers: Mapping[str, str] | None,
        told: tuple[str | None, str | None, str],
    ) -> None:
        super().__init__(body, status, dict(headers or {}))
        self.told = told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        facts(scope).error = self.told
        await super().__call__(scope, receive, send)


def error_response(
    status: int,
    message: str,
    type: str = INVALID,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An error as a response."""
    body = json.dumps(error_body(message, type, param, code)).encode()
    return ErrorResponse(body, status, headers, (param, code, type))


def answer_to(error: ApiError) -> Response:
    """The response that an error stands for."""
    return error_response(
        error.status, error.message, error.type, error.param, error.code, error.headers
    )


def api_error(error: Exception, names: Mapping[str, str] | None = None) -> ApiError:
    """The answer to an exception.

    names: the field of the body that stands for an option of the engine
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, dlm.InvalidRequest):
        option, _, part = error.param.partition(": ")
        param = (names or {}).get(option, option)
        rule = error.message.partition(LITERAL)[0]
        return refused(param, f"`{param}`: {part}: {rule}" if part else f"`{param}`: {rule}")
    if isinstance(error, dlm.Unavailable):
        return busy(str(error), error.retry_after)
    if isinstance(error, dlm.CheckpointError | dlm.RuleError):
        return ApiError(500, str(error), SERVER, code="model", headers={"x-should-retry": "false"})
    log.error("an unexpected error", exc_info=error)
    return ApiError(500, "an unexpected error; the server's log has it", SERVER, code="internal")


def busy(message: str, seconds: float | None) -> ApiError:
    """The error 429 of a full queue; `seconds` until there may be room."""
    wait = 1 if seconds is None or not math.isfinite(seconds) else min(max(seconds, 1), 120)
    headers = {"Retry-After": str(math.ceil(wait))}
    return ApiError(429, message, BUSY, code="queue_full", headers=headers)


def draining() -> ApiError:
    """The error 503 of a server that is about to end."""
    return ApiError(
        503,
        "the server is about to end and takes no new requests",
        SERVER,
        code="draining",
        headers={"Retry-After": "5"},
    )


def install_errors(app: FastAPI) -> None:
    """Answer every error of an app in OpenAI's shape."""
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


async def _on_api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return answer_to(error)


async def _on_http(request: Request, error: Exception) -> Response:
    """Unknown routes, wrong methods, bodies that are too large or no JSON."""
    assert isinstance(error, HTTPException)
    path = shortened(request.url.path, LONGEST_PATH)
    told = {
        404: (f"there is no {path} here", "not_found"),
        405: (f"{path} does not take {request.method}", "method_not_allowed"),
        413: ("the body is larger than this server takes", "request_too_large"),
        415: ("the body must be JSON, with Content-Type: application/json", "not_json"),
    }
    phrase = HTTPStatus(error.status_code).phrase.lower()
    message, code = told.get(error.status_code, (str(error.detail), phrase.replace(" ", "_")))
    kind = SERVER if error.status_code >= 500 else INVALID
    return error_response(error.status_code, message, kind, None, code, error.headers)


async def _on_invalid(_: Request, error: Exception) -> Response:
    """A body, path or query of the wrong form."""
    assert isinstance(error, RequestValidationError)
    message, param = told_faults(error.errors())
    return answer_to(ApiError(400, message, param=param, code="invalid_value"))
