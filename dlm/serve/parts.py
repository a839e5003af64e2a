"""Parts of what a decision reads: texts, and JSON that is shown as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeVar

from pydantic import Field

from dlm.serve.errors import ApiError, refused
from dlm.serve.fields import Body, Text
from dlm.serve.schemas import MOST_PARTS

T = TypeVar("T")

MOST_JSON: Final = 256 * 1024
MOST_VALUES: Final = 10_000
MOST_NESTED: Final = 32
"""Bytes, values and nested containers of a JSON part, as OpenAI bounds them."""
IMAGES: Final = "images are not supported: text alone is understood"


class Part(Body):
    """A part of a message or of instructions: text or JSON."""

    type: str
    text: Text | None = None
    data: dict[str, Any] | list[dict[str, Any]] | None = None
    refusal: Text | None = None


Parts = Annotated[list[Part], Field(max_length=MOST_PARTS)]


def as_text(where: str, value: Any) -> str:
    """A text as it is, other JSON as JSON, None as nothing. Raises `ApiError` 400."""
    if value is None:
        return ""
    try:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except RecursionError as error:
        raise wrong(where, "is nested too deeply") from error


def text_of(where: str, content: str | Sequence[Part] | None) -> str:
    """The text of a content or of its parts. Raises `ApiError` 400 for other parts."""
    if content is None or isinstance(content, str):
        return required(where, content)
    return "\n".join(_part(f"{where}[{number}]", part) for number, part in enumerate(content))


def _part(where: str, part: Part) -> str:
    if part.type in ("input_text", "output_text", "text"):
        return required(f"{where}.text", part.text)
    if part.type == "refusal":
        return required(f"{where}.refusal", part.refusal)
    if part.type == "input_json":
        data = required(f"{where}.data", part.data)
        _check_json(f"{where}.data", data)
        return as_text(f"{where}.data", data)
    rule = IMAGES if part.type == "input_image" else f"is of the unknown type {part.type[:40]!r}"
    raise refused(where, f"`{where}`: {rule}", "unsupported_parameter")


def _check_json(where: str, data: Any) -> None:
    """Raise `ApiError` 400 for JSON beyond OpenAI's bounds."""
    count, level = 0, [data]
    for _ in range(MOST_NESTED + 1):
        count += len(level)
        level = [inner for value in level for inner in _inner(value)]
        if not level:
            break
    size = len(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode())
    if level or count > MOST_VALUES or size > MOST_JSON:
        rule = f"at most {MOST_NESTED} levels, {MOST_VALUES} values and {MOST_JSON} bytes"
        raise wrong(where, f"must have {rule}")


def _inner(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else ()


def required(where: str, value: T | None) -> T:
    """A value that is there. Raises `ApiError` 400."""
    if value is None:
        raise wrong(where, "is required")
    return value


def wrong(where: str, rule: str) -> ApiError:
    """The error 400 for a field and the rule that it breaks."""
    return refused(where, f"`{where}`: {rule}", "invalid_value")
