"""Checks of plain numbers, which every option of a request goes through."""

from __future__ import annotations

import math
from typing import TypeGuard

from dlm.errors import InvalidRequest, shown


def require_integer(
    name: str, value: object, low: int, most: int | None = None, *, optional: bool = False
) -> None:
    """Raises `InvalidRequest` unless `value` is an integer, no boolean, in `low..most`, or None
    where it is `optional`.
    """
    if optional and value is None:
        return
    allowed = f"of at least {low}" if most is None else f"between {low} and {most}"
    top = math.inf if most is None else most
    if not is_integer(value) or not low <= value <= top:
        kind = "None or an integer" if optional else "an integer"
        raise InvalidRequest(name, f"must be {kind} {allowed}, got {shown(value)}")


def require_number(name: str, value: object, *, low: float, high: float = math.inf) -> None:
    """Raises `InvalidRequest` unless `value` is a finite number in `low..high`."""
    allowed = f"of at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
    if not is_finite(value) or not low <= value <= high:
        raise InvalidRequest(name, f"must be a finite number {allowed}, got {shown(value)}")


def is_integer(value: object) -> TypeGuard[int]:
    """Return True for a plain integer; a boolean is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: object) -> TypeGuard[float]:
    """Return True for a plain number that a float can hold and that is finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False
