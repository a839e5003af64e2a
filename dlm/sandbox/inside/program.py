"""The end with the program: it runs the program in an empty namespace and then serves its names."""

from __future__ import annotations

import builtins
import os
import sys
from _sitebuiltins import Quitter

from dlm.sandbox.inside.link import Link, Lost
from dlm.sandbox.inside.objects import Objects
from dlm.sandbox.inside.operations import OPERATIONS
from dlm.sandbox.inside.strangers import Strangers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, NoReturn

SYNTAX: Final = "syntax"
ANSWERS: Final = 100
"""How often `input()` gives an empty line, though stdin is empty: a program that asks for something
before it defines its function is to be judged by its function.
"""


class Program:
    """A program's names, for the tests."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}
        self.streams, self.process = (sys.stdout, sys.stderr), os.getpid()

    def perform(self, operation: str, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Carry out a request of the tests, whose result follows the program's output."""
        try:
            if operation == "name":
                return self.names[args[0]]
            if operation == "bind":
                self.names[args[0]] = args[1]
                return None
            return OPERATIONS[operation](*args, **named)
        finally:
            self.flush()

    def flush(self) -> None:
        """Flush the program's output; a child that it has forked ends here."""
        child = os.getpid() != self.process
        for stream in self.streams:
            try:
                stream.flush()
            except (OSError, ValueError):
                continue
        if child:
            os._exit(0)

    def load(self, source: str) -> str:
        """Run the program; "" if it came to its end, else the error of its syntax."""
        try:
            code = compile(source, "<program>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            print("syntax:", error, file=sys.stderr)
            return f"{SYNTAX}: {error}"
        finally:
            self.flush()
        try:
            exec(code, self.names)
        except SystemExit:
            raise
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
            raise
        finally:
            self.flush()
        return ""


def patient(ask: Callable[..., str]) -> Callable[..., str]:
    """`input` that answers with empty lines, a number of times, where nothing is to be read."""
    left = iter(range(ANSWERS))

    def answered(prompt: object = "", /) -> str:
        try:
            return ask(prompt)
        except EOFError:
            if next(left, None) is None:
                raise
            return ""

    answered.__name__ = answered.__qualname__ = "input"
    return answered


def main(incoming: int, outgoing: int) -> None:
    """Serve the program that the first question holds until the tests' end is gone."""

    def fail(error: BaseException) -> NoReturn:
        program.flush()
        if isinstance(error, Lost):
            os._exit(0)
        raise error

    builtins.input = patient(builtins.input)
    for name in ("exit", "quit"):
        setattr(builtins, name, Quitter(name, "Ctrl-D (i.e. EOF)"))
    program, strangers = Program(), Strangers()
    objects = Objects(strangers, judges=False)
    link = strangers.link = Link(objects, (incoming, outgoing), program.perform, fail)
    _, number, (_, (source,), _) = link.receive()
    try:
        told: Any = program.load(source)
        kind = b"A"
    except SystemExit:
        raise
    except BaseException as error:
        told, kind = error, b"E"
    link.send(kind, number, told)
    link.serve()
