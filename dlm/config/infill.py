"""The forms of `infill` that are understood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from dlm.config.checks import is_integer
from dlm.errors import InvalidRequest, require_text, shown

FORMS: Final = (
    "must be a text with holes [[mask:N]], a list of ids with None where it is open, or a map from "
    "offsets to texts or ids"
)

MOST: Final = 2**31
"""Offsets stay below it."""
DIGITS: Final = 20
"""A string of this many digits is no offset."""


def checked_infill(
    infill: Any, param: str = "infill"
) -> str | tuple[int | None, ...] | Mapping[int, Any]:
    """A text as it is, ids as a tuple, a map with whole numbers as its keys.

    Raises `InvalidRequest` that names `param` for anything else.
    """
    if isinstance(infill, str):
        return require_text(param, infill)
    if isinstance(infill, Mapping):
        pieces = {at: _piece(at, piece) for at, piece in _offsets(infill)}
        if len(pieces) < len(infill):
            raise InvalidRequest("infill", f"an offset is given twice, got {shown(dict(infill))}")
        return MappingProxyType(pieces)
    if isinstance(infill, Sequence) and all(token is None or is_integer(token) for token in infill):
        return tuple(infill)
    raise InvalidRequest(param, f"{FORMS}, got {shown(infill)}")


def _offsets(infill: Mapping[Any, Any]) -> Iterator[tuple[int, Any]]:
    """The items of a map, its keys as whole numbers of at least 0; in JSON they are digits."""
    for at, piece in infill.items():
        offset = int(at) if isinstance(at, str) and at.isdecimal() and len(at) < DIGITS else at
        if not is_integer(offset) or not 0 <= offset < MOST:
            rule = "an offset must be an integer of at least 0"
            below = " and below 2**31" if is_integer(offset) and offset >= MOST else ""
            raise InvalidRequest("infill", f"{rule}{below}, got {shown(at)}")
        yield offset, piece


def _piece(at: int, piece: Any) -> str | int | tuple[int, ...]:
    """The piece at an offset: a text, an id, or ids."""
    if isinstance(piece, str) and piece:
        return require_text(f"infill[{at}]", piece)
    if is_integer(piece):
        return piece
    if isinstance(piece, Sequence) and piece and all(map(is_integer, piece)):
        return tuple(piece)
    raise InvalidRequest("infill", f"a piece must be a text, an id or ids, got {shown(piece)}")
