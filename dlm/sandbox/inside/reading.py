"""Bytes as values. Reading makes nothing but plain data and strangers, whatever the bytes are."""

from __future__ import annotations

import sys
from struct import unpack_from

from dlm.sandbox.inside.kinds import MODULES, NAMES, PURE, empty, made, named
from dlm.sandbox.inside.objects import BUILTINS, NAN, Malformed, Objects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final

    Read = Callable[["Reader"], Any]

DIGITS: Final = 32
"""Most digits of a count or a number."""


class Reader:
    """A message as it is read."""

    def __init__(self, objects: Objects, data: bytes, at: int = 0) -> None:
        self.objects, self.data, self.at = objects, data, at

    def value(self) -> Any:
        """The next value."""
        letter = self.data[self.at : self.at + 1]
        self.at += 1
        read = READ.get(letter)
        if read is not None:
            return read(self)
        if (kind := letter.decode("latin-1")) in NAMES:
            return self.container(kind)
        raise Malformed("a letter of nothing")

    def count(self, digits: int = DIGITS) -> int:
        """The next number, which ends with a semicolon."""
        end = self.data.find(b";", self.at, self.at + digits)
        if end < 0:
            raise Malformed("a number without end")
        number = int(self.data[self.at : end], 16)
        self.at = end + 1
        return number

    def raw(self) -> bytes:
        """The next bytes, with their length before them."""
        return self.take(self.count())

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        found = self.data[self.at : self.at + length]
        if length < 0 or len(found) != length:
            raise Malformed("too short")
        self.at += length
        return found

    def parts(self) -> tuple[Any, ...]:
        """The next values, with their count before them."""
        count = self.count()
        if abs(count) > len(self.data) - self.at:
            raise Malformed("a count of too many")
        if count < 0:
            numbers = tuple([int(number, 16) for number in self.raw().split(b",")])
            if len(numbers) != -count:
                raise Malformed("a count of others")
            return numbers
        return tuple([self.value() for _ in range(count)])

    def container(self, letter: str, of: int | None = None) -> Any:
        """The next container, noted before its parts are read: it may hold itself."""
        number, more = self.count(), self.value()
        base = None if of is None else self.objects.strangers.view(named(NAMES[letter]))
        found = empty(letter, more, base)
        if of is not None:
            self.objects.strangers.seen(of, found)
        entry = self.objects.receive(number, letter, found)
        entry.become(self.parts())
        return found

    def known(self) -> Any:
        """The container that the next number names."""
        entry = self.objects.shared.get(self.count())
        if entry is None:
            raise Malformed("a number of nothing")
        return entry.value

    def view(self) -> Any:
        """The plain value of an object whose class is a subclass of plain data."""
        number = self.count()
        letter = self.data[self.at : self.at + 1].decode("latin-1")
        if letter in NAMES:
            self.at += 1
            return self.container(letter, number)
        plain = self.value()
        if type(plain) not in (int, float, complex, str, bytes, tuple, frozenset):
            raise Malformed("a view of nothing")
        found = self.objects.strangers.view(type(plain))(plain)
        self.objects.strangers.seen(number, found)
        return found

    def stranger(self) -> Any:
        """Read a reference to an object of the other end and return its stand-in."""
        number, calls = self.count(), self.take(1) == b"c"
        digest = self.data[self.at : self.at + 1]
        if digest in (b";", b"u"):
            self.at += 1 if digest == b";" else 2
            return self.objects.strangers.handle(number, calls, number if digest == b";" else None)
        return self.objects.strangers.handle(number, calls, self.count())

    def error_class(self) -> type:
        """A class of exceptions."""
        kind = self.reference()
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise Malformed("no exception")
        for entry in reversed(self.parts()):
            number, name = entry
            if not (type(number) is int and type(name) is str):
                raise Malformed("no exception")
            kind = self.objects.strangers.error(number, name, kind)
        checked: type = kind
        return checked

    def error(self) -> Any:
        """An exception, by its class, arguments, attributes and text."""
        if self.take(1) != b"K":
            raise Malformed("no exception")
        kind, args, more, text = self.error_class(), self.parts(), self.value(), self.value()
        if not (isinstance(more, dict) and isinstance(text, str)):
            raise Malformed("no exception")
        try:
            error = kind(*args)
        except Exception:
            error = BaseException.__new__(kind, *args)
        if "__dict__" in dir(error):
            vars(error).update(more)
            if hasattr(kind, "told"):
                vars(error)["told"] = text
        return error

    def reference(self) -> Any:
        """A class or function that goes by its name."""
        module, _, name = self.raw().decode().partition(":")
        if module == "builtins":
            found = BUILTINS.get(name)
        elif not self.allowed(module, PURE) or name.startswith("_"):
            raise Malformed("a name that is not given out")
        else:
            found = named(f"{module}.{name}")
        if not callable(found):
            raise Malformed("a name of nothing")
        return found

    def module(self) -> Any:
        """A module that goes by its name."""
        name = self.raw().decode()
        if not self.allowed(name, MODULES):
            raise Malformed("a module that is not given out")
        __import__(name)
        return sys.modules[name]

    def allowed(self, module: str, pure: frozenset[str]) -> bool:
        """True if the other end may name this module; the tests may name any."""
        return module in pure or not self.objects.judges

    def nan(self) -> float:
        """A NaN with an identity."""
        found = float("nan")
        self.objects.receive(self.count(), NAN, found).last = ()
        return found


def _dict_view(kind: str) -> Read:
    def read(reader: Reader) -> Any:
        parts = reader.parts()
        pairs = enumerate(parts) if kind == "values" else ((part, None) for part in parts)
        return getattr(dict(parts if kind == "items" else pairs), kind)()

    return read


def _value(reader: Reader) -> Any:
    return made(reader.raw().decode(), reader.parts())


def _float(reader: Reader) -> float:
    (found,) = unpack_from("<d", reader.take(8))
    return float(found)


READ: Final[Mapping[bytes, Read]] = {
    b"N": lambda reader: None,
    b".": lambda reader: ...,
    b"~": lambda reader: NotImplemented,
    b"T": lambda reader: True,
    b"B": lambda reader: False,
    b"i": lambda reader: reader.count(len(reader.data)),
    b"f": _float,
    b"*": lambda reader: named("math.nan"),
    b"n": Reader.nan,
    b"c": lambda reader: complex(*unpack_from("<dd", reader.take(16))),
    b"s": lambda reader: reader.raw().decode("utf-8", "surrogatepass"),
    b"b": Reader.raw,
    b"(": Reader.parts,
    b"Z": lambda reader: frozenset(reader.parts()),
    b"r": lambda reader: range(*reader.parts()),
    b":": lambda reader: slice(*reader.parts()),
    b"k": _dict_view("keys"),
    b"v": _dict_view("values"),
    b"e": _dict_view("items"),
    b"&": Reader.known,
    b"h": lambda reader: reader.objects.kept(reader.count()),
    b"H": Reader.stranger,
    b"W": Reader.view,
    b"V": _value,
    b"K": Reader.error_class,
    b"!": Reader.error,
    b"R": Reader.reference,
    b"m": Reader.module,
}
