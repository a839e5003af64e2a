"""Decoding settings of a comparison: a name and the options of `GenerationConfig`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import dlm
from dlm.errors import InvalidRequest, unknown_name


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of a table. `name` is unique in it; `options` are those of `engine.generate`.

    `causal`: the row of the autoregressive model · `sweep`: the family of settings it belongs to.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    causal: bool = False
    sweep: str = ""


def slug(name: str) -> str:
    """A setting's name as a folder's."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-").lower() or "default"


def numbers(name: str, text: str) -> list[float]:
    """`"0.9, 0.8"` as numbers, none of an empty text. Raises `InvalidRequest` naming the option."""
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InvalidRequest(name, f"must be numbers with commas, got {text!r}") from error


def parse_setting(text: str) -> Setting:
    """`"fast: unmask=threshold(0.9), cache=dual"` as a setting; without a name the options are it.

    Values are literals, or taken as they are written. Raises `InvalidRequest` for an unknown
    option, and for what is no `option=value`.
    """
    head, colon, rest = text.partition(":")
    named = colon and "=" not in head
    name, body = (head.strip(), rest) if named else ("", text)
    options: dict[str, Any] = {}
    for part in _split(body):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals:
            raise InvalidRequest(
                "config", f"must be 'name: option=value, ...', got {part.strip()!r} in {text!r}"
            )
        if key not in dlm.FIELDS:
            raise unknown_name("config", key, dlm.FIELDS)
        options[key] = _value(value.strip())
    return Setting(name or ", ".join(part.strip() for part in _split(body)) or "default", options)


def _split(text: str) -> Iterator[str]:
    """The parts between commas that stand in no bracket and no quotes."""
    depth, quote, part = 0, "", ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0 and not quote:
            yield part
            part = ""
        else:
            part += character
    if part.strip():
        yield part


def _value(text: str) -> Any:
    """A literal, or the text itself (`threshold(0.9)`, `dual`)."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
