"""Checks of the options of `dlm eval`, before anything is loaded, drawn or written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from dlm.errors import InvalidRequest

MOST_THREADS: Final = 1024
"""More threads than any machine has use for."""


def at_least(low: int, **given: int | None) -> None:
    """Raise `InvalidRequest` for the first of the numbers that is below `low`."""
    for name, value in given.items():
        if value is not None and value < low:
            raise InvalidRequest(name, f"must be at least {low}, got {value}")


def at_most(high: int, **given: int | None) -> None:
    """Raise `InvalidRequest` for the first of the numbers that is above `high`."""
    for name, value in given.items():
        if value is not None and value > high:
            raise InvalidRequest(name, f"must be at most {high}, got {value}")


def names(option: str, text: str) -> list[str]:
    """`"math,code"` as names, none of an empty text, which stands for all.

    Raises `InvalidRequest` for a text that holds no name, and for a name that it holds twice.
    """
    from dlm.evals.settings import listed

    return listed(option, text) if text else []


def percent(option: str, value: float | None) -> None:
    """Raise `InvalidRequest` unless a number is a share in percent."""
    if value is not None and not (math.isfinite(value) and 0 <= value <= 100):
        raise InvalidRequest(option, f"must be a number between 0 and 100, got {value}")


def server_alone(endpoint: str | None, causal: str | None, **given: tuple[object, object]) -> None:
    """Refuse options that a server ignores, by (value, default). Raises `InvalidRequest`."""
    if endpoint is None or causal is not None:
        return
    for name, (value, default) in given.items():
        if value != default:
            raise InvalidRequest(name, f"is of a model here, not of --endpoint, got {value!r}")


def files_known(given: Sequence[str], known: Sequence[str]) -> None:
    """Every name before the first is fetched. Raises `InvalidRequest` with the choices."""
    from dlm.errors import unknown_name

    for name in given:
        if name not in known:
            raise unknown_name("data", name, known)
