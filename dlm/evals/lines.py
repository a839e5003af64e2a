"""Files of lines: JSON objects, appended one by one; a crash may cut the last one short."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TextIO, TypeVar

from dlm.errors import InvalidRequest

T = TypeVar("T")


def read_lines(path: Path, parse: Callable[[Mapping[str, Any]], T]) -> list[T]:
    """Parse each line of a file; a missing file is empty, an unfinished last line is left out.

    The file stays as it is: another process may be writing it. Raises `InvalidRequest` naming the
    line that is no object of JSON, or that `parse` refuses with `ValueError`.
    """
    if not path.is_file():
        return []
    content = path.read_bytes()
    parsed = []
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line.decode("utf-8"))
            if not isinstance(record, dict):
                raise ValueError(f"must be a JSON object, got {type(record).__name__}")
            parsed.append(parse(record))
        except (ValueError, RecursionError) as error:  # of JSON, of UTF-8, of `parse`
            again = "delete the line, and its content is made again"
            wrong = f"{path}, line {number} cannot be read ({error}): {again}"
            raise InvalidRequest("run", wrong) from error
    return parsed


@contextmanager
def appending(path: Path, *, wait: bool) -> Iterator[TextIO]:
    """A file to append lines to, by one process at a time; a last line that was cut is removed.

    `wait`: for another process that has it; else `InvalidRequest` is raised.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as raw:
        try:
            fcntl.flock(raw, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            busy = f"{path.parent} is being written by another process"
            raise InvalidRequest("out", busy) from error
        raw.seek(0)
        content = raw.read()
        if not content.endswith(b"\n"):
            raw.truncate(content.rfind(b"\n") + 1)
        with path.open("a", encoding="utf-8") as file:
            yield file


def check_writable(folder: Path) -> None:
    """Raise `InvalidRequest` if files cannot be written into a folder, or it cannot be made.

    Nothing is left of the attempt.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        rule = f"must be a folder that can be written, got {folder}: {error.strerror}"
        raise InvalidRequest("out", rule) from error
    finally:
        for place in made:
            with suppress(OSError):
                place.rmdir()


def checked(record: Mapping[str, Any], kinds: Mapping[str, type]) -> dict[str, Any]:
    """The values of a line with exactly these fields, of these types. Raises `ValueError`.

    Whole numbers count as floats, too; numbers are finite and not negative.
    """
    if record.keys() != kinds.keys():
        wrong = sorted(record.keys() ^ kinds.keys())
        raise ValueError(f"missing or unknown: {', '.join(wrong)}")
    for name, kind in kinds.items():
        value = record[name]
        fits = isinstance(value, (int, float) if kind is float else kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"`{name}` must be of type {kind.__name__}, got {value!r:.60}")
        if isinstance(value, int | float) and not 0 <= value < float("inf"):
            raise ValueError(f"`{name}` must be a finite number of at least 0, got {value!r:.60}")
    return dict(record)
