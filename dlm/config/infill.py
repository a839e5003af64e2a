"""The forms of `infill` that are understood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from dlm.errors import InvalidRequest

FORMS: Final = (
    "must be a text with holes [[mask:N]], a list of ids with None where it is open, or a map from "
    "offsets to texts or ids"
)


def checked_infill(infill: Any) -> str | tuple[int | None, ...] | Mapping[int, Any]:
    """A text as it is, ids as a tuple, a map with whole numbers as its keys.

    Raises `InvalidRequest` for anything else.
    """
    if isinstance(infill, str):
        return infill
    if isinstance(infill, Mapping):
        pieces = {_offset(at): _piece(piece) for at, piece in infill.items()}
        if len(pieces) < len(infill):
            raise InvalidRequest("infill", f"an offset is given twice, got {dict(infill)!r}")
        return MappingProxyType(pieces)
    if isinstance(infill, Sequence) and all(token is None or _is_id(token) for token in infill):
        return tuple(infill)
    raise InvalidRequest("infill", f"{FORMS}, got {infill!r}")


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _offset(at: Any) -> int:
    """A key of a map: a whole number of at least 0, in JSON a string of digits."""
    if isinstance(at, str) and at.isdecimal():
        return int(at)
    if not _is_id(at) or at < 0:
        raise InvalidRequest("infill", f"an offset must be an integer of at least 0, got {at!r}")
    return int(at)


def _piece(piece: Any) -> str | int | tuple[int, ...]:
    """What stands at an offset: a text, an id, or ids."""
    if isinstance(piece, str) and piece:
        return piece
    if isinstance(piece, int) and not isinstance(piece, bool):
        return piece
    if isinstance(piece, Sequence) and piece and all(map(_is_id, piece)):
        return tuple(piece)
    raise InvalidRequest("infill", f"a piece must be a text, an id or ids, got {piece!r}")
