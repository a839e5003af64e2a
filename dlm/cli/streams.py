"""Standard streams that are closed, full, or of an encoding that lacks characters."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Final

from dlm.errors import shortened

FAULT, USAGE = 1, 2  # exit codes
LONGEST: Final = 800
"""Characters of an error line: paths may be long."""


def open_missing_streams() -> bool:
    """Give every standard stream that was closed the null device; whether stdout was.

    Another file would take its number, and find what is printed in it.
    """
    lost = sys.stdout is None
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, open(number, "r+" if number == 0 else "w", closefd=False))  # noqa: SIM115
    return lost


def show_what_can_be_shown() -> None:
    """Print a question mark for what a stream cannot encode."""
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


def close_streams(code: int, *, lost: bool = False) -> int:
    """Write out what is buffered; the exit code, which tells of output that went nowhere.

    What cannot be written is dropped, or the interpreter would complain of it when it ends. A pipe
    whose reader has left is told by the code alone, as other programs do.
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
    """Let what is left in a stream's buffer go to the null device."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())  # type: ignore[union-attr]
        os.close(null)
        stream.flush()  # type: ignore[union-attr]
