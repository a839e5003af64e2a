"""Extractors: the short answer that a text comes to, by which answers are compared."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from dlm.errors import shown, unknown_name

Extractor = Callable[[str], str | None]
NUMBER: Final = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def last_number(text: str) -> str | None:
    """The last number, without commas and noughts after a point."""
    found = NUMBER.findall(text)
    if not found:
        return None
    number: str = found[-1].replace(",", "")
    return number.rstrip("0").rstrip(".") if "." in number else number


def last_line(text: str) -> str | None:
    """The last line that is not blank."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), None)


EXTRACTORS: Final[Mapping[str, Extractor]] = MappingProxyType(
    {"last_number": last_number, "last_line": last_line}
)


def extract(name: Any) -> Extractor:
    """The extractor of a name; a function of a user is one. Raises `InvalidRequest`."""
    if callable(name):
        return name  # type: ignore[no-any-return]
    if not isinstance(name, str) or name not in EXTRACTORS:
        raise unknown_name("extract", name if isinstance(name, str) else shown(name), EXTRACTORS)
    return EXTRACTORS[name]
