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
    found = []
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            told = json.loads(line.decode("utf-8"))
            if not isinstance(told, dict):
                raise ValueError(f"must be a JSON object, got {type(told).__name__}")
            found.append(parse(told))
        except (ValueError, RecursionError) as error:  # of JSON, of UTF-8, of `parse`
            again = "delete the line, and its content is made again"
            told = f"{path}, line {number} cannot be read ({error}): {again}"
            raise InvalidRequest("run", told) from error
    return found


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
            told = f"{path.parent} is being written by another process"
            raise InvalidRequest("out", told) from error
        raw.seek(0)
        content = raw.read()
        if not content.endswith(b"\n"):
            raw.truncate(content.rfind(b"\n") + 1)
        with path.open("a", encoding="utf-8") as file:
            yield file


def check_writable(folder: Path) -> None:
    """Raise `InvalidRequest` where files cannot be written into a folder, or it cannot be made.

    Nothing is left of the attempt.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        told = f"must be a folder that can be written, got {folder}: {error.strerror}"
        raise InvalidRequest("out", told) from error
    finally:
        for place in made:
            with suppress(OSError):
                place.rmdir()


def checked(told: Mapping[str, Any], kinds: Mapping[str, type]) -> dict[str, Any]:
    """The values of a line with exactly these fields, of these types. Raises `ValueError`.

    Whole numbers count as floats, too; numbers are finite and not negative.
    """
    if told.keys() != kinds.keys():
        wrong = sorted(told.keys() ^ kinds.keys())
        raise ValueError(f"missing or unknown: {', '.join(wrong)}")
    for name, kind in kinds.items():
        value = told[name]
        fits = isinstance(value, (int, float) if kind is float else kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"`{name}` must be of type {kind.__name__}, got {value!r:.60}")
        if isinstance(value, int | float) and not 0 <= value < float("inf"):
            raise ValueError(f"`{name}` must be a finite number of at least 0, got {value!r:.60}")
    return dict(told)
