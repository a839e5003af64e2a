"""The end with the tests: it alone decides whether the program passes, where no program can reach.

The tests run here, in a process of their own. Names that they use and do not define are the
program's, and are asked for there; what comes back is plain data, made again here, or stands for an
object of the program's. Every comparison is made here, and no operator or `in` shows the program a
value of the tests; only a method that they call with arguments on one of its objects answers for
itself. The verdict goes through a pipe that the program's process never had, with a nonce that it
was never given.
"""

from __future__ import annotations

import builtins
import os
import sys

from dlm.sandbox.inside.link import Link, Lost
from dlm.sandbox.inside.objects import Objects
from dlm.sandbox.inside.operations import OPERATIONS
from dlm.sandbox.inside.strangers import HEAP, Strangers
from dlm.sandbox.inside.writing import Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final, NoReturn

TOLD: Final = frozenset({"__name__", "__qualname__", "__doc__", "__module__"})
LEFT: Final = "left"
"""Verdict on a program whose process is gone: its exit code tells more."""


class Names(dict[str, Any] if TYPE_CHECKING else dict):  # type: ignore[misc]
    """The tests' namespace: names that they do not define, the program may.

    What they import, the program's functions find too, as if they shared a namespace.
    """

    def __init__(self, link: Link, borrowed: Sequence[str]) -> None:
        """`borrowed`: names of builtins; the first of them that the program defines is its own."""
        super().__init__()
        self._link, self._borrowed = link, list(borrowed)

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            while self._borrowed[:1] not in ([], [name]) and not self._defined(self._borrowed[0]):
                del self._borrowed[0]
            if self._borrowed[:1] != [name]:
                raise KeyError(name)
        found = self._defined(name)
        if not found:
            raise KeyError(name)
        return found[0]

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        if type(value) is type(sys) or Writer(self._link.objects).reference(value):
            self._link.ask("bind", name, value)

    def _defined(self, name: str) -> tuple[Any, ...]:
        """Return the program's object of this name in a tuple; empty if it defines none."""
        try:
            return (self._link.ask("name", name),)
        except Exception:
            return ()


class Tester:
    """The judge of one program."""

    def __init__(self, verdict: int, nonce: str) -> None:
        self.pipe, self.nonce = verdict, nonce

    def end(self, verdict: str, detail: str = "") -> NoReturn:
        """Say how the program has done, and leave."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        told = f"{self.nonce} {verdict}\n{detail[:500]}"
        os.write(self.pipe, told.encode("utf-8", "replace"))
        os._exit(0)

    def fail(self, error: BaseException) -> NoReturn:
        """End because of a message of the program: no code of the tests may catch that."""
        if isinstance(error, Lost):
            self.end(LEFT)
        if isinstance(error, MemoryError):
            self.end("memory", "an answer that is too large")
        self.end("exception", f"the program's answer cannot be read: {error}")

    def raised(self, error: BaseException) -> NoReturn:
        """End over an exception that nothing has caught."""
        if isinstance(error, SystemExit):
            self.end("unfinished" if error.code in (None, 0) else "exception", "SystemExit")
        kinds = ((AssertionError, "assertion"), (MemoryError, "memory"))
        verdict = next((name for kind, name in kinds if isinstance(error, kind)), "exception")
        try:
            text = str(error)
        except BaseException:
            text = ""
        self.end(verdict, f"{type(error).__name__}: {text}" if text else type(error).__name__)

    def judge(
        self, link: Link, source: str, tests: str, borrowed: Sequence[str], entry: str
    ) -> NoReturn:
        """Run the program there and its tests here."""
        try:
            wrong = link.ask("load", source)
        except BaseException as error:
            self.raised(error)
        if wrong:
            self.end("syntax", str(wrong))
        try:
            code = compile(tests, "<tests>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            self.end("syntax", f"in the tests: {error}")
        try:
            exec(code, {"entry": link.ask("name", entry)} if entry else Names(link, borrowed))
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
            self.raised(error)
        self.end("passed")


def permitted(objects: Objects, operation: str, args: tuple[Any, ...]) -> bool:
    """True if the program may do this with an object of the tests.

    It may call the callables that it was given, use iterators, and see the public attributes of
    instances of classes that the tests define.
    """
    if not args or objects.own_numbers.get(id(args[0])) is None or operation not in OPERATIONS:
        return False
    kind = type(args[0])
    ours = getattr(kind, "__module__", None) in (None, "builtins") and bool(kind.__flags__ & HEAP)
    if operation == "call":
        return callable(args[0])
    if operation in ("getattr", "setattr", "delattr"):
        name = args[1] if len(args) > 1 else None
        public = type(name) is str and not name.startswith("_")
        return (ours and public) or (operation == "getattr" and name in TOLD)
    return operation not in ("isinstance", "dir", "copy", "deepcopy")


def main(verdict: int, outgoing: int, incoming: int, given: tuple[Any, ...]) -> NoReturn:
    """Judge the program in `given`: nonce, source, tests, names of builtins it may redefine,
    and the one name that the tests have of it, "" for all.
    """
    nonce, source, tests, borrowed, entry = given

    def perform(operation: str, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if not permitted(objects, operation, args):
            raise AttributeError("this is not the program's to ask")
        return OPERATIONS[operation](*args, **named)

    tester, strangers = Tester(verdict, nonce), Strangers()
    objects = Objects(strangers, judges=True)
    link = strangers.link = Link(objects, (incoming, outgoing), perform, tester.fail)
    tester.judge(link, source, tests, borrowed, entry)
