"""The endpoints by the fields that they take: no field of another one is silently ignored."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from dlm.errors import listed
from dlm.serve.decisions import DecisionRequest, SystemOneRequest
from dlm.serve.errors import refused
from dlm.serve.fields import Body, Ignored, Neutral, Sampling, unsupported
from dlm.serve.schemas import ChatRequest, CompletionRequest, FimRequest, ResponsesRequest

ENDPOINTS: Final[Mapping[str, type[Body]]] = MappingProxyType(
    {
        "/v1/chat/completions": ChatRequest,
        "/v1/completions": CompletionRequest,
        "/v1/fim/completions": FimRequest,
        "/v1/responses": ResponsesRequest,
        "/v1/decisions": DecisionRequest,
        "/v1/systemone": SystemOneRequest,
    }
)
"""The path of each endpoint that answers -> the schema of its body."""


def check_own_fields(body: Body) -> None:
    """Raise `ApiError` 400 for a field of another endpoint that would change an answer there.

    Fields that no endpoint knows are left alone: clients send some of other servers.
    """
    for name, value in (body.model_extra or {}).items():
        if value is None or value is False or value in ("", [], {}):
            continue
        schemas = {path: s for path, s in ENDPOINTS.items() if name in s.model_fields}
        marks = {path: _mark(schema, name) for path, schema in schemas.items()}
        if any(isinstance(mark, Ignored) for mark in marks.values()):
            continue
        if takers := [path for path, mark in marks.items() if mark is None]:
            where = "endpoints that generate" if name in Sampling.model_fields else listed(takers)
            told = f"`{name}` is no field of this endpoint, but of {where}"
            raise refused(name, told, "unsupported_parameter")
        for mark in marks.values():
            if isinstance(mark, Neutral) and value not in mark.values:
                raise unsupported(name, mark, value)


def _mark(schema: type[Body], name: str) -> Neutral | Ignored | None:
    """The mark of a field; None for one that is honoured."""
    metadata = schema.model_fields[name].metadata
    return next((mark for mark in metadata if isinstance(mark, Neutral | Ignored)), None)
