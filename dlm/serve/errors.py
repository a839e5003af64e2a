"""Errors as OpenAI's clients read them: one JSON shape for all of them."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

import dlm
from dlm.errors import shortened, shown

log = logging.getLogger("dlm.serve")

INVALID: Final = "invalid_request_error"
SERVER: Final = "server_error"
BUSY: Final = "rate_limit_error"
MOST_TOLD: Final = 3
"""Faults of a body that one message lists."""
RULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "string_unicode": "must be Unicode text",
        "string_type": "must be a string",
        "list_type": "must be a list",
        "dict_type": "must be an object",
        "model_attributes_type": "must be an object",
        "model_type": "must be an object",
        "too_short": "must have at least {min_length} items",
        "too_long": "must have at most {max_length} items",
        "string_too_long": "must have at most {max_length} characters",
    }
)
"""Rules that a value breaks, by pydantic's name of the fault."""
NAMES: Final[Mapping[type, str]] = MappingProxyType({list: "a list", dict: "an object"})
"""Kinds of JSON values."""
LONGEST: Final = 600
"""Characters of a message."""
LONGEST_PATH: Final = 120
"""Characters of a path in a message."""
_UNION: Final = re.compile(
    r"^(function-|constrained-|nullable|lax-|json-|list\[|dict\[|str$|int$|float$|bool$)"
)


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
    return Response(body, status, dict(headers or {}), "application/json")


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
        param = (names or {}).get(error.param, error.param)
        return refused(param, f"`{param}`: {error.message}")
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
        413: ("the body is larger than this server takes", "too_large"),
        415: ("the body must be JSON, with Content-Type: application/json", "not_json"),
    }
    phrase = HTTPStatus(error.status_code).phrase.lower()
    message, code = told.get(error.status_code, (str(error.detail), phrase.replace(" ", "_")))
    kind = SERVER if error.status_code >= 500 else INVALID
    return error_response(error.status_code, message, kind, None, code, error.headers)


async def _on_invalid(_: Request, error: Exception) -> Response:
    """A body, path or query of the wrong form."""
    assert isinstance(error, RequestValidationError)
    return answer_to(invalid_body(error.errors()))


def invalid_body(faults: Sequence[Mapping[str, Any]]) -> ApiError:
    """The error 400 for faults that pydantic found: the first ones, each with its field."""
    rules: dict[str, list[str]] = {}
    given: dict[str, str] = {}
    for fault in _fitting(faults):
        where = _field(fault["loc"])
        rules.setdefault(where, []).append(_rule(fault))
        given.setdefault(where, _given(fault))
    lines = [
        (f"`{where}` " if where else "the body ") + " or ".join(dict.fromkeys(own)) + given[where]
        for where, own in rules.items()
    ]
    more = f" (and {len(lines) - MOST_TOLD} more)" if len(lines) > MOST_TOLD else ""
    param = next(iter(rules)) or None
    return ApiError(400, "; ".join(lines[:MOST_TOLD]) + more, param=param, code="invalid_value")


def _fitting(faults: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The faults without those of the forms of a field that the value was not meant for.

    Where a field may have several forms, pydantic tells what each of them lacks. The form that was
    meant is the one that the value follows furthest.
    """
    kept = list(faults)
    for depth in range(max((len(fault["loc"]) for fault in kept), default=0)):
        forms: dict[tuple[Any, ...], dict[str, list[Mapping[str, Any]]]] = {}
        for fault in kept:
            places = fault["loc"]
            if len(places) > depth and _UNION.match(str(places[depth])):
                own = forms.setdefault(places[:depth], {})
                own.setdefault(places[depth], []).append(fault)
        for own in forms.values():
            reached = {form: _reached(told, depth + 1) for form, told in own.items()}
            wrong = [form for form in own if reached[form] < max(reached.values())]
            gone = {id(fault) for form in wrong for fault in own[form]}
            kept = [fault for fault in kept if id(fault) not in gone]
    return kept


def _reached(faults: Sequence[Mapping[str, Any]], depth: int) -> tuple[float, ...]:
    """The place of the first value of another type, from `depth` on; infinity if all types fit."""
    places = [
        tuple(float(place) for place in fault["loc"][depth:] if isinstance(place, int))
        for fault in faults
        if fault["type"] == "missing" or fault["type"].endswith("_type")
    ]
    return min(places, default=(math.inf,))


def _field(places: Sequence[Any]) -> str:
    """The field of a fault, as `messages[0].content`."""
    where = ""
    for place in places:
        if isinstance(place, int):
            where += f"[{place}]"
        elif place not in ("body", "query", "path") and not _UNION.match(place):
            where += f".{place}" if where else place
    return shortened(where, 80)


def _rule(fault: Mapping[str, Any]) -> str:
    """The rule that a value breaks, in words that follow the field's name."""
    if fault["type"] == "missing":
        return "is required"
    if fault["type"] in RULES:
        rule = RULES[fault["type"]].format_map(fault.get("ctx", {}))
        return rule.replace(" 1 items", " 1 item")
    words = str(fault["msg"]).removeprefix("Value error, ")
    for theirs in ("Input should be ", "Input should ", "Extra inputs are "):
        if words.startswith(theirs):
            ours = {"Input should be ": "must be ", "Input should ": "must "}
            return ours.get(theirs, "is ") + words.removeprefix(theirs)
    return words[:1].lower() + words[1:]


def _given(fault: Mapping[str, Any]) -> str:
    """The value at fault, shortened: its kind where it is a list or an object."""
    if fault["type"] == "missing":
        return ""
    if fault["type"] in ("too_short", "too_long"):
        return f", got {fault['ctx']['actual_length'] or 'none'}"
    value = fault.get("input")
    plain = isinstance(value, str | int | float | bool | None)
    if isinstance(value, bool | None):
        return f", got {json.dumps(value)}"
    return f", got {shown(value)}" if plain else f", got {NAMES.get(type(value), 'another value')}"
