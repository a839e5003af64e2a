"""Do the arguments of a part fit the fields they are meant for?"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from dlm.config.checks import is_finite, is_integer
from dlm.errors import InvalidRequest, shown

MOST: Final = 2**31
"""Numbers of parts stay below it, so that two of them can be multiplied."""


def check_arguments(kind: str, cls: type, arguments: Mapping[str, Any]) -> None:
    """Raise `InvalidRequest` for the first argument that is not of its field's type.

    Fields whose annotation is not made of numbers, strings, booleans, None, literals and tuples
    are left to the part itself.
    """
    hints = _hints(cls)
    for name, value in arguments.items():
        hint = hints.get(name, Any)
        if not fits(value, hint):
            large = is_integer(value) and abs(value) >= MOST and fits(0, hint)
            below = " below 2**31" if large and not fits(0.5, hint) else ""
            wanted = f"{describe(hint)}{below}"
            raise InvalidRequest(kind, f"`{name}` must be {wanted}, got {shown(value)}")


def with_tuples(cls: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with tuples in place of lists wherever their fields are tuples."""
    hints = _hints(cls)
    return {name: _as_tuples(value, hints.get(name, Any)) for name, value in arguments.items()}


def _as_tuples(value: Any, hint: Any) -> Any:
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        tuples = [option for option in inside if get_origin(option) is tuple]
        return _as_tuples(value, tuples[0]) if tuples else value
    if origin is not tuple or not isinstance(value, list | tuple):
        return value
    if inside[1:] == (Ellipsis,):
        return tuple(_as_tuples(item, inside[0]) for item in value)
    if len(inside) != len(value):
        return tuple(value)
    return tuple(map(_as_tuples, value, inside))


def check_fields(kind: str, part: Any) -> None:
    """Raise `InvalidRequest` for the first field of a part, made by its class, as for arguments."""
    check_arguments(kind, type(part), {one.name: getattr(part, one.name) for one in fields(part)})


@functools.lru_cache(maxsize=256)
def _hints(cls: type) -> Mapping[str, Any]:
    """The types of a part's fields, once: reading them costs more than all the checks."""
    try:
        return get_type_hints(cls)
    except Exception:  # an own rule whose annotations mean nothing at run time
        return {}


def fits(value: Any, hint: Any) -> bool:
    """True if a literal is of the type `hint`; an integer is a float, a boolean is no number."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and _fits_tuple(value, arguments)
    if hint is float:
        return is_finite(value)
    if hint is int:
        return is_integer(value) and abs(value) < MOST
    if hint in (bool, str, NoneType):
        return isinstance(value, hint)
    return True


def _fits_tuple(value: tuple[Any, ...], hints: tuple[Any, ...]) -> bool:
    if len(hints) == 2 and hints[1] is Ellipsis:
        return all(fits(item, hints[0]) for item in value)
    return len(value) == len(hints) and all(map(fits, value, hints))


_WORDS: Final[Mapping[Any, str]] = {
    int: "an integer",
    float: "a finite number",
    str: "a string",
    bool: "True or False",
    NoneType: "None",
}


def describe(hint: Any) -> str:
    """The type in words: "an integer or None", "one of 'a', 'b'", "a tuple of integers"."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(describe(option) for option in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin is tuple:
        inside = ", ".join(describe(a) for a in arguments if a is not Ellipsis)
        if Ellipsis not in arguments:
            return f"a tuple of ({inside})"
        return "a tuple, such as ('a', 'b')" if arguments[0] is Any else f"a tuple, each {inside}"
    return _WORDS.get(hint, str(hint))
