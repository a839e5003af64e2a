"""Decoding settings of a comparison: a name and the options of `GenerationConfig`."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import dlm
from dlm.errors import InvalidRequest, unknown_name

LONGEST: Final = 120
"""Bytes of a setting's folder name."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of a table.

    name: unique in the table
    options: of `engine.generate`
    causal: True for the row of the autoregressive model
    sweep: the family of settings that it belongs to
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    causal: bool = False
    sweep: str = ""


def slug(name: str) -> str:
    """A setting's name as a folder's: letters, digits and points, no more than a path may have."""
    short = re.sub(r"[^\w.]+|_", "-", name).strip("-.").lower() or "default"
    if len(short.encode()) <= LONGEST:
        return short
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{short.encode()[: LONGEST - 9].decode(errors='ignore')}-{digest}"


def numbers(name: str, text: str) -> list[float]:
    """`"0.9, 0.8"` as numbers. Raises `InvalidRequest` naming the option."""
    try:
        return [float(part) for part in listed(name, text)]
    except ValueError as error:
        if isinstance(error, InvalidRequest):
            raise
        raise InvalidRequest(name, f"must be numbers with commas, got {text!r}") from error


def listed(name: str, text: str) -> list[str]:
    """`"math, code"` as names. Raises `InvalidRequest` for none, and for one named twice."""
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise InvalidRequest(name, f"must be names with commas, each given, got {text!r}")
    if twice := [part for part in names if names.count(part) > 1]:
        raise InvalidRequest(name, f"must name each once, got {twice[0]!r} twice")
    return names


def check_setting(setting: Setting, samples: int = 1) -> None:
    """Refuse what cannot be evaluated: options that give other things than one answer, and seeds of
    which the last sample has none. Raises `InvalidRequest` naming the setting.
    """
    try:
        config = dlm.GenerationConfig.from_options(setting.options)
        replace(config, seed=config.seed + samples - 1)
    except InvalidRequest as error:
        raise InvalidRequest(error.param, f"{error.message} (setting {setting.name!r})") from error
    for name, wrong, instead in (
        ("n", config.n != 1, "--samples asks for several answers an item"),
        ("infill", config.infill is not None, "items are answered, and nothing is given"),
        ("trace", config.trace, "evaluation keeps no events"),
    ):
        if wrong:
            raise InvalidRequest(name, f"is no option here: {instead} (setting {setting.name!r})")


def draws_alike(settings: Iterable[Setting], samples: int) -> list[str]:
    """The settings of which several samples are one answer, unless the rule itself draws: those at
    temperature 0, or with the likeliest token alone.
    """
    told = ((s.name, s.options.get("temperature"), s.options.get("top_k")) for s in settings)
    return [name for name, warmth, k in told if samples > 1 and (not warmth or k == 1)]


def parse_setting(text: str, more: Collection[str] = ()) -> Setting:
    """`"fast: unmask=threshold(0.9), cache=dual"` as a setting; without a name the options are it.

    Values are literals, or taken as they are written. `more`: names beside the options of
    generation. Raises `InvalidRequest` for an unknown option, for one given twice, for text that is
    no `option=value`, and for an empty name or text.
    """
    if not text.strip() or text.strip().startswith(":"):
        raise InvalidRequest("config", f"must have a name or options, got {text!r}")
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
        if key not in dlm.FIELDS and key not in more:
            raise unknown_name("config", key, [*dlm.FIELDS, *more])
        if key in options:
            raise InvalidRequest("config", f"`{key}` is given twice in {text!r}")
        options[key] = _value(value.strip())
    return Setting(name or ", ".join(part.strip() for part in _split(body)) or "default", options)


def _split(text: str) -> Iterator[str]:
    """The parts between commas outside brackets and quotes."""
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
