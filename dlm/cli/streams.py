"""Standard streams that are closed, full, or of an encoding that lacks characters."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TextIO

import dlm
from dlm.errors import shortened

HOME: Final = Path(dlm.__file__).parent
FAULT, USAGE = 1, 2  # exit codes
LONGEST: Final = 800
"""Characters of an error line: paths may be long."""


def open_missing_streams() -> bool:
    """Give every standard stream that was closed the null device; whether stdout was.

    Another file would take its number, and be printed into.
    """
    lost = sys.stdout is None
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            # it stays open as long as the process
            setattr(sys, name, open(number, "r+" if number == 0 else "w", closefd=False))  # noqa: SIM115
    return lost


def show_what_can_be_shown() -> None:
    """Print a question mark for characters that a stream cannot encode."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def is_unicode() -> bool:
    """Return True if stdout can show every character."""
    return (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")


def complain(message: str, code: int) -> int:
    """One line on stderr, if somebody still reads it; the exit code."""
    line = shortened(message, LONGEST)
    with suppress(OSError):
        print("dlm: error:", line, file=sys.stderr, flush=True)
    return code


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Show what dlm warns of as one line on stderr, and the warnings of others as they are."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if Path(filename).is_relative_to(HOME):
                print("dlm: warning:", shortened(str(message), LONGEST), file=sys.stderr)
            else:
                others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def close_streams(code: int, *, lost: bool = False) -> int:
    """Flush the buffers; return the exit code, which reports output that went nowhere.

    Output that cannot be written is dropped, or the interpreter would complain when it ends. A pipe
    whose reader has left is reported by the code alone, as other programs do.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            code = code or FAULT
            _drop(stream)
        except OSError as error:
            _drop(stream)
            code = code or complain(f"writing the output: {error.strerror}", FAULT)
    return code or (complain("stdout is closed", FAULT) if lost else 0)


def _drop(stream: io.TextIOBase | object) -> None:
    """Send the rest of a stream's buffer to the null device."""
    with suppress(OSError, ValueError, AttributeError):  # the last: an object without them
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())  # type: ignore[union-attr]
        os.close(null)
        stream.flush()  # type: ignore[union-attr]
