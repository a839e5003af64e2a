"""Bodies of requests: JSON read strictly, before any schema looks at it."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

from dlm.errors import shown
from dlm.serve.errors import ApiError

JSON_TYPES = ("application/json", "+json")


class JsonRequest(Request):
    """A request whose body must be JSON as the standard has it."""

    async def json(self) -> Any:
        """The parsed body, once. Raises `HTTPException` 400 for everything that is no JSON."""
        if not hasattr(self, "_json"):
            self._json = parse(await self.body())
        return self._json


class JsonRoute(APIRoute):
    """A route that reads its body through `JsonRequest`. Other media types are answered with 415.

    A page of another site can make a browser send a form here, but no JSON without being asked.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler with the stricter request."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if request.method == "POST" and not kind.endswith(JSON_TYPES):
                raise HTTPException(415)
            check_encoding(request.headers.get("content-encoding", "identity"))
            return await handler(JsonRequest(request.scope, request.receive))

        return strict


def check_encoding(name: str) -> None:
    """Raise `ApiError` 415 for a body that is compressed."""
    if name.strip().lower() not in ("", "identity"):
        told = f"the body has Content-Encoding {shown(name)}; this server takes plain ones alone"
        raise ApiError(415, told, code="unsupported_encoding")


def parse(body: bytes) -> Any:
    """The value of a JSON text. Raises `HTTPException` 400 that tells the fault and its place.

    Stricter than Python's own reader: NaN and infinities are no JSON, a text is UTF-8 without
    halves of surrogate pairs, nesting is bounded by 200, whole numbers by 4,300 digits. A byte
    order mark is left out.
    """
    try:
        found = body.removeprefix(BOM_UTF8)
        return from_json(found, allow_inf_nan=False, cache_strings="keys")  # no texts are kept
    except ValueError as error:
        raise HTTPException(400, f"the body is no JSON: {error}") from error
