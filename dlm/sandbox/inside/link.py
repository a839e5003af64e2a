"""Questions and answers between two ends over a pair of pipes.

Each end asks the other to do something with an object; while it waits it answers what the other one
asks meanwhile. Frames are a length and bytes; each brings the containers that have changed.
"""

from __future__ import annotations

from posix import read, write

from dlm.sandbox.inside.objects import Malformed, Objects
from dlm.sandbox.inside.reading import Reader
from dlm.sandbox.inside.writing import Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, NoReturn

MOST_BYTES: Final = 64 << 20
"""Of a frame."""
QUESTION, ANSWER, ERROR = b"Q", b"A", b"E"


class Lost(Exception):
    """The other end is gone."""


class Link:
    """One end of a link.

    perform: carries out a request of the other end
    fail: ends this end, when the other one is gone or sends what cannot be read
    """

    def __init__(
        self,
        objects: Objects,
        pipes: tuple[int, int],
        perform: Callable[[str, tuple[Any, ...], dict[str, Any]], Any],
        fail: Callable[[BaseException], NoReturn],
    ) -> None:
        self.objects, self.perform, self.fail = objects, perform, fail
        self.incoming, self.outgoing = pipes
        self.asked = 0

    def ask(self, operation: str, /, *args: Any, **named: Any) -> Any:
        """Let the other end perform an operation; return its result or raise its error."""
        self.asked += 1
        number = self.asked
        self.send(QUESTION, number, (operation, args, tuple(named.items())))
        while True:
            kind, asked_number, value = self.receive()
            if kind == QUESTION:
                self.answer(asked_number, value)
            elif asked_number != number:
                self.fail(Malformed("an answer to something else"))
            elif kind == ANSWER:
                return value
            else:
                raise value

    def serve(self) -> None:
        """Answer until the other end is gone."""
        while True:
            kind, number, value = self.receive()
            if kind != QUESTION:
                self.fail(Malformed("an answer to nothing"))
            self.answer(number, value)

    def answer(self, number: int, question: tuple[str, tuple[Any, ...], tuple[Any, ...]]) -> None:
        """Carry out a request and send its result."""
        try:
            operation, args, named = question
            kind, value = ANSWER, self.perform(operation, args, dict(named))
        except BaseException as error:
            kind, value = ERROR, error
        try:
            self.send(kind, number, value)
        except (Exception, RecursionError) as error:
            self.send(ERROR, number, type(error)(f"a value that cannot be sent: {error}"))

    def send(self, kind: bytes, number: int, value: Any) -> None:
        """Send one frame."""
        writer, mark = Writer(self.objects), self.objects.next
        try:
            dropped = self.objects.alone() if self.objects.judges else ()
            writer.parts(kind + b"%x;" % number, dropped)
            changes = list(self.objects.changes())
            writer.out.append(b"%x;" % len(changes))
            for changed, parts in changes:
                writer.parts(b"%x;" % changed, parts)
            writer.value(value)
        except BaseException:
            self.objects.forget_since(mark)
            raise
        data = b"".join(writer.out)
        data = len(data).to_bytes(4, "big") + data
        try:
            while data:
                data = data[write(self.outgoing, data) :]
        except OSError:
            self.fail(Lost())

    def receive(self) -> tuple[bytes, int, Any]:
        """Kind, number and value of the next frame."""
        try:
            length = int.from_bytes(self.take(4), "big")
            if length > MOST_BYTES:
                raise Malformed("too much")
            reader = Reader(self.objects, self.take(length))
            kind, number = reader.take(1), reader.count()
            if kind not in (QUESTION, ANSWER, ERROR):
                raise Malformed("a kind of nothing")
            for forgotten in reader.parts():
                self.objects.forget(forgotten)
            for _ in range(reader.count()):
                self.objects.shared[reader.count()].become(reader.parts())
            value = reader.value()
            if kind == ERROR and not isinstance(value, BaseException):
                raise Malformed("no exception")
        except BaseException as error:
            self.fail(error)
        return kind, number, value

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        found: list[bytes] = []
        while length:
            data = read(self.incoming, min(length, 1 << 20))
            if not data:
                raise Lost
            found.append(data)
            length -= len(data)
        return b"".join(found)
