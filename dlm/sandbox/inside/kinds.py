"""Plain data: the types whose values travel, and how each is taken apart and put together.

A value is read by the methods of its plain type: overrides of a subclass change nothing, so that
no comparison in the tests is ever made by a method of the program.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Final

NUMPY_KINDS: Final = "biufcmMSU"
"""Kinds of numpy's element types that are plain data."""
CONTAINERS: Final[Mapping[str, str]] = {
    "builtins.list": "L",
    "builtins.dict": "D",
    "builtins.set": "S",
    "builtins.bytearray": "Y",
    "collections.OrderedDict": "O",
    "collections.Counter": "C",
    "collections.defaultdict": "F",
    "collections.deque": "Q",
    "numpy.ndarray": "A",
}
"""Qualified names of what can be changed in place -> letter on the wire."""
NAMES: Final[Mapping[str, str]] = {letter: name for name, letter in CONTAINERS.items()}
DICTS: Final = frozenset("DOCF")
HOMES: Final = frozenset({"builtins", "collections", "decimal", "fractions", "datetime", "uuid"})
"""Modules of plain types, numpy aside."""
PURE: Final = frozenset(
    {"math", "cmath", "itertools", "operator", "collections", "string", "statistics", "decimal"}
    | {"fractions", "datetime", "heapq", "bisect", "re", "random", "copy", "_operator", "_heapq"}
    | {"_bisect", "_collections", "_random", "_statistics", "_decimal", "_datetime"}
)
"""Modules whose functions and classes the tests take from their own library."""
MODULES: Final = PURE.union(("functools", "typing", "json", "sys", "os", "time", "numpy"))
"""Modules that travel by name."""


def qualified(kind: type) -> str:
    """The name of a type, if it is the one that is found there."""
    module, name = getattr(kind, "__module__", None), kind.__qualname__
    if not (isinstance(module, str) and isinstance(name, str)):
        return ""
    found = getattr(sys.modules.get(module), name, None)
    return f"{module}.{name}" if found is kind else ""


def named(name: str) -> Any:
    """Import the object of a qualified name."""
    module, _, attribute = name.rpartition(".")
    return getattr(__import__(module, fromlist=[attribute]), attribute)


# containers


def flat(letter: str, value: Any) -> tuple[Any, ...]:
    """The parts of a container in a row; it has changed when they are other objects."""
    if letter == "L":
        return tuple(list.__iter__(value))
    if letter in DICTS:
        return tuple(part for pair in named(NAMES[letter]).items(value) for part in pair)
    if letter == "A":
        holds = value.dtype.kind == "O"
        return (value.shape, tuple(value.flat) if holds else value.tobytes())
    return tuple(named(NAMES[letter]).__iter__(value))


def extra(letter: str, value: Any) -> Any:
    """Return the setting of a container that its elements do not hold (None: it has none)."""
    if letter == "F":
        return value.default_factory
    if letter == "Q":
        return value.maxlen
    return value.dtype.str if letter == "A" else None


def empty(letter: str, more: Any, base: type | None = None) -> Any:
    """A container without parts; `base` is a subclass that it is to be of."""
    kind = base or named(NAMES[letter])
    if letter == "F":
        return kind(more if more is None or isinstance(more, type) else None)
    if letter == "Q":
        return kind((), more)
    if letter == "A":
        return kind((0,), "O" if more == "|O" else element_type(more))
    return kind()


def fill(letter: str, value: Any, parts: Sequence[Any]) -> None:
    """Make `parts` all that a container holds."""
    kind = named(NAMES[letter])
    if letter == "L":
        kind.__setitem__(value, slice(None), parts)
    elif letter == "Y":
        kind.__setitem__(value, slice(None), bytes(parts))
    elif letter == "A":
        shape, data = parts
        if value.shape != shape:
            value.resize(shape, refcheck=False)
        if isinstance(data, tuple):
            row = kind((len(data),), "O")
            for place, one in enumerate(data):
                row[place] = one
        else:
            row = named("numpy.frombuffer")(data, value.dtype)
        value[...] = row.reshape(shape)
    else:
        kind.clear(value)
        if letter in DICTS:
            for place in range(0, len(parts), 2):
                kind.__setitem__(value, parts[place], parts[place + 1])
        else:
            (kind.extend if letter == "Q" else kind.update)(value, parts)


def element_type(text: str) -> Any:
    """Numpy's element type of a description such as `<f8`; refuses those that hold objects."""
    if not isinstance(text, str) or text[1:2] not in NUMPY_KINDS:
        raise ValueError("no plain element type")
    return named("numpy.dtype")(text)


# values that are made again from arguments


def _moment(value: Any) -> tuple[Any, ...]:
    parts = (value.year, value.month, value.day, value.hour, value.minute, value.second)
    return (*parts, value.microsecond, value.tzinfo)


def _time_of_day(value: Any) -> tuple[Any, ...]:
    return (value.hour, value.minute, value.second, value.microsecond, value.tzinfo)


def _scalar(data: bytes, kind: str) -> Any:
    return named("numpy.frombuffer")(data, element_type(kind))[0]


PARTS: Final[Mapping[str, Callable[[Any], tuple[Any, ...]]]] = {
    "decimal.Decimal": lambda value: (str(value),),
    "fractions.Fraction": lambda value: (value.numerator, value.denominator),
    "datetime.datetime": _moment,
    "datetime.date": lambda value: (value.year, value.month, value.day),
    "datetime.time": _time_of_day,
    "datetime.timedelta": lambda value: (value.days, value.seconds, value.microseconds),
    "datetime.timezone": lambda value: (value.utcoffset(None),),
    "uuid.UUID": lambda value: (value.hex,),
    "numpy.scalar": lambda value: (value.tobytes(), value.dtype.str),
}
"""Qualified name -> the arguments that make an equal value; `fold` of times is no part of that."""


def made(name: str, parts: tuple[Any, ...]) -> Any:
    """The value of `name` with these arguments."""
    if name not in PARTS:
        raise ValueError("no plain type")
    return _scalar(*parts) if name == "numpy.scalar" else named(name)(*parts)


def plain_name(value: Any) -> str:
    """The name under which a value travels by its arguments, "" for any other value."""
    kind = type(value)
    module = getattr(kind, "__module__", None)  # a class made without a namespace has none
    if module == "numpy":
        generic = getattr(sys.modules.get("numpy"), "generic", None)
        is_scalar = generic is not None and issubclass(kind, generic)
        return "numpy.scalar" if is_scalar and value.dtype.kind in NUMPY_KINDS else ""
    name = qualified(kind) if module in HOMES else ""
    zone = getattr(value, "tzinfo", None) if name.startswith("datetime.") else None
    if zone is not None and qualified(type(zone)) != "datetime.timezone":
        return ""
    return name if name in PARTS else ""
