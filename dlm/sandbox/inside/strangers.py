"""Objects of the other end, as this end sees them."""

from __future__ import annotations

from dlm.sandbox.inside.operations import BINARY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from dlm.sandbox.inside.link import Link

UNARY: Final = (
    *("len", "iter", "next", "reversed", "getitem", "setitem", "delitem", "bool", "int", "float"),
    *("complex", "index", "str", "repr", "format", "dir", "abs", "neg", "pos", "invert", "round"),
    *("trunc", "floor", "ceil", "enter", "exit", "copy"),
)
"""Special methods that ask the other end."""
MEMORY: Final = ("__array", "__buffer__", "__dlpack", "__cuda_array_interface__")
"""How names begin by which numpy finds memory: an address of the other end's is none here."""

HEAP: Final = 1 << 9
"""Flag of a type that a class statement has made."""


def _one(operation: str) -> Callable[..., Any]:
    return lambda self, *args: _ask(self, operation, *args)


def _two(operation: str) -> Callable[..., Any]:
    def method(self: Stranger, other: Any) -> Any:
        if not isinstance(other, Stranger):
            return NotImplemented
        return _ask(self, operation, other)

    return method


def _attribute(self: Any, name: str, ask: Callable[..., Any]) -> Any:
    """An attribute that the other end is asked for; none leads to memory."""
    if name.startswith(MEMORY):
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
    return ask("getattr", self, name)


def _with_special_methods(kind: type) -> Any:
    """Give a class the special methods that ask the other end."""
    for name in UNARY:
        setattr(kind, f"__{name}__", _one(name))
    for name in BINARY:
        setattr(kind, f"__{name.rstrip('_')}__", _two(name))
    return kind


@_with_special_methods
class Stranger:
    """An object of the other end.

    It is equal to no plain value, whatever its class says: only another object of the same end may
    be. Membership is found by iteration.
    """

    __slots__ = ("_dlm_digest", "_dlm_link", "_dlm_number")

    def __getattr__(self, name: str) -> Any:
        return _attribute(self, name, self._dlm_link.ask)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, "setattr", name, value)

    def __delattr__(self, name: str) -> None:
        _ask(self, "delattr", name)

    def __hash__(self) -> int:
        if self._dlm_digest is None:
            raise TypeError("unhashable type")
        return hash(self._dlm_digest)

    def __contains__(self, item: Any) -> bool:
        return any(one is item or one == item for one in self)  # type: ignore[attr-defined]

    def __instancecheck__(self, value: Any) -> bool:
        theirs = self._dlm_link.objects.strangers.number(value) is not None
        return theirs and bool(self._dlm_link.ask("isinstance", value, self))

    def __deepcopy__(self, memo: Any) -> Any:
        return _ask(self, "deepcopy")


class StrangerCallable(Stranger):
    """A function or class of the other end, or whatever can be called."""

    __slots__ = ()

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Call it there."""
        return _ask(self, "call", *args, **named)


def _ask(stranger: Stranger, operation: str, /, *args: Any, **named: Any) -> Any:
    return stranger._dlm_link.ask(operation, stranger, *args, **named)


class Strangers:
    """Stand-ins at this end for objects of the other end, one for each object."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.handles: dict[int, Stranger] = {}
        self.views: dict[type, type] = {}
        self.errors: dict[int, type] = {}
        self.numbers: dict[int, tuple[int, Any]] = {}

    def number(self, value: Any) -> int | None:
        """The other end's number of its own object, None for anything else."""
        if type(value) in (Stranger, StrangerCallable):
            found: int = value._dlm_number
            return found
        return self.numbers.get(id(value), (None, None))[0]

    def handle(self, number: int, calls: bool, digest: int | None) -> Stranger:
        """Return the stand-in of an object. `digest`: its hash (None: unhashable)."""
        found = self.handles.get(number)
        if found is None:
            found = self.handles[number] = (StrangerCallable if calls else Stranger)()
            for name, value in (("link", self.link), ("number", number), ("digest", digest)):
                object.__setattr__(found, f"_dlm_{name}", value)
        return found

    def seen(self, number: int, value: Any) -> None:
        """Note that a value made here is the plain value of an object of the other end."""
        self.numbers[id(value)] = number, value

    def view(self, base: type) -> type:
        """A class of plain values whose public attributes are those of the object, which may have
        methods of its own under the names of its base's.
        """
        found = self.views.get(base)
        if found is None:
            link = self.link
            assert link is not None

            def attribute(self: Any, name: str) -> Any:
                if name.startswith("_"):
                    return object.__getattribute__(self, name)
                return link.ask("getattr", self, name)

            methods: dict[str, Any] = {
                name: lambda self, *args, _name=operation: link.ask(_name, self, *args)
                for name, operation in (
                    ("__str__", "str"),
                    ("__repr__", "repr"),
                    ("__format__", "format"),
                )
            }
            methods["__getattr__"] = lambda self, name: _attribute(self, name, link.ask)
            # A class written in Python, as `Counter`, calls its own methods; what numpy makes of an
            # array is no object of the program's.
            if base.__module__ in ("builtins", "collections") and not base.__flags__ & HEAP:
                methods["__getattribute__"] = attribute
            found = self.views[base] = type(base.__name__, (base,), methods)
        return found

    def error(self, number: int, name: str, base: type) -> type:
        """A class that stands for one of the other end's exceptions."""
        found = self.errors.get(number)
        if found is None:
            members = {"told": "", "__str__": lambda self: self.told}
            found = self.errors[number] = type(name, (base,), members)
            self.seen(number, found)
        return found
