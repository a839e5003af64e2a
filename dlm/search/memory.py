"""`Memory`: values that are computed once for equal keys, whichever thread asks for them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Memory(Generic[T]):
    """Values by their owner and key.

    Who asks for a key that another thread computes waits for it. No two threads wait for each
    other: each one computes all that it has taken on before it waits.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._owners: dict[int, object] = {}  # they live on, so that no other has the same id
        self._values: dict[tuple[int, Hashable], Future[T]] = {}

    def find(
        self,
        owner: object,
        keys: Sequence[Hashable],
        compute: Callable[[Sequence[int]], Sequence[T]],
        lasts: Callable[[T], bool],
    ) -> list[T]:
        """The value of each key.

        owner: has values of its own, told by its identity
        compute: gives the values of the keys of these numbers, which nobody has computed yet
        lasts: tells if a value is remembered; else it is for those alone who wait for it
        """
        whole = [(id(owner), key) for key in keys]
        own: dict[tuple[int, Hashable], int] = {}
        with self._lock:
            self._owners[id(owner)] = owner
            for number, key in enumerate(whole):
                if key not in self._values:
                    own[key], self._values[key] = number, Future()
            found = [self._values[key] for key in whole]
        try:
            values = compute(list(own.values())) if own else ()
            for key, value in zip(list(own), values, strict=True):
                if not lasts(value):
                    self._forget(key)
                found[own.pop(key)].set_result(value)
        except BaseException as error:
            for key, number in own.items():
                self._forget(key)
                found[number].set_exception(error)
            raise
        return [value.result() for value in found]

    def _forget(self, key: tuple[int, Hashable]) -> None:
        with self._lock:
            del self._values[key]
