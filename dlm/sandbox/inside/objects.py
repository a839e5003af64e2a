"""Objects that both ends of a link know: containers by number, and each end's own objects."""

from __future__ import annotations

import sys

from dlm.sandbox.inside.kinds import fill, flat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any, Final

    from dlm.sandbox.inside.strangers import Strangers


BUILTINS: Final[Mapping[str, Any]] = {
    name: value for name, value in vars(sys.modules["builtins"]).items() if isinstance(value, type)
}
"""The types that have a name everywhere, as they were before any program ran."""
NAN: Final = "n"
ALONE: Final = 2
"""`getrefcount` of an object that nothing but one slot holds."""


class Malformed(Exception):
    """The received bytes are no message that an honest end sends."""


class Shared:
    """A container that both ends have.

    letter: its kind
    last: the parts that the other end knows of, None while it is being read
    """

    __slots__ = ("last", "letter", "value")

    def __init__(self, letter: str, value: Any, last: tuple[Any, ...] | None = None) -> None:
        self.letter, self.value, self.last = letter, value, last

    def changed(self) -> tuple[Any, ...] | None:
        """Its parts, if they are no longer those that the other end knows of."""
        if self.last is None or self.letter == NAN:
            return None
        parts = flat(self.letter, self.value)
        if len(parts) == len(self.last) and all(map(_is, parts, self.last)):
            return None
        self.last = parts
        return parts

    def become(self, parts: Sequence[Any]) -> None:
        """Take the parts that the other end sends."""
        fill(self.letter, self.value, parts)
        self.last = flat(self.letter, self.value)


class Objects:
    """One end's tables. `judges`: whether this is the tests' end, which believes nothing."""

    def __init__(self, strangers: Strangers, *, judges: bool) -> None:
        self.strangers, self.judges = strangers, judges
        self.next = 1 if judges else 2
        self.shared: dict[int, Shared] = {}
        self.numbers: dict[int, int] = {}
        self.own: list[Any] = []
        self.own_numbers: dict[int, int] = {}

    def share(self, letter: str, value: Any, last: tuple[Any, ...]) -> int:
        """Number a container of this end."""
        number, self.next = self.next, self.next + 2
        self.shared[number], self.numbers[id(value)] = Shared(letter, value, last), number
        return number

    def receive(self, number: int, letter: str, value: Any) -> Shared:
        """Note a container that the other end has numbered."""
        if number in self.shared or (number & 1) == (self.next & 1):
            raise Malformed("a number that is taken")
        entry = self.shared[number] = Shared(letter, value)
        self.numbers[id(value)] = number
        return entry

    def forget(self, number: int) -> None:
        """Drop a container that the other end no longer has."""
        entry = self.shared.pop(number, None)
        if entry is not None:
            self.numbers.pop(id(entry.value), None)

    def forget_since(self, number: int) -> None:
        """Drop the objects numbered from `number` on: the message was never sent."""
        for told in [told for told in self.shared if told >= number and not (told - number) & 1]:
            self.forget(told)

    def alone(self) -> list[int]:
        """Drop the containers that nothing else holds here, and return their numbers."""
        found = []
        for number in list(self.shared):
            if sys.getrefcount(self.shared[number].value) == ALONE:
                self.forget(number)
                found.append(number)
        return found

    def changes(self) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Number and parts of the containers that have changed since the last message."""
        for number, entry in list(self.shared.items()):
            parts = entry.changed()
            if parts is not None:
                yield number, parts

    def keep(self, value: Any) -> int:
        """The number of an object of this end."""
        number = self.own_numbers.get(id(value))
        if number is None:
            number = self.own_numbers[id(value)] = len(self.own)
            self.own.append(value)
        return number

    def kept(self, number: int) -> Any:
        """The object of this end that has a number."""
        if not 0 <= number < len(self.own):
            raise Malformed("a number of nothing")
        return self.own[number]


def _is(one: Any, other: Any) -> bool:
    return one is other
