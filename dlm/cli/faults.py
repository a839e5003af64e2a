"""Errors as a line on stderr and an exit code: 1 for a fault, 2 for a wrong request."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from dlm.cli.streams import FAULT, USAGE, close_streams, complain
from dlm.errors import (
    Culprit,
    DlmError,
    EngineError,
    InvalidRequest,
    RuleError,
    Unavailable,
    culprit_of,
    needs_extra,
)

EXTRAS: Final[Mapping[str, str]] = {
    "matplotlib": "evals",
    "scipy": "evals",
    "math_verify": "evals",
    "openai": "evals",
    "lm_eval": "harness",
    "fastapi": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
    "yaml": "serve",
}
"""A package that is optional, and the extra that brings it."""
SURPLUS: Final = "a text of several words needs quotes, and flags like --watch take no value"


def report_error(error: Exception) -> int:
    """Report an error on stderr; return the exit code."""
    if culprit := culprit_of(error):
        return _tell_fault_of(culprit, error)
    if isinstance(error, InvalidRequest | Unavailable):
        return complain(str(error), USAGE)
    if isinstance(error, ModuleNotFoundError) and (package := _optional(error)):
        return complain(f"this {needs_extra(package, EXTRAS[package])}", USAGE)
    if isinstance(error, OSError):
        return _tell_system_error(error)
    if isinstance(error, DlmError) and not isinstance(error, EngineError):
        return complain(str(error), FAULT)
    if hasattr(error, "format_message"):  # of click or typer: a wrong argument
        message = error.format_message()
        hint = f": {SURPLUS}" if "unexpected extra argument" in message else ""
        return complain(message + hint, USAGE)
    if os.environ.get("DLM_DEBUG", "0") not in ("", "0"):
        traceback.print_exc()
    what = f"{type(error).__name__}: {error}"
    return complain(f"this is a bug: {what} (traceback: DLM_DEBUG=1)", FAULT)


def _tell_fault_of(culprit: Culprit, error: Exception) -> int:
    """Report a fault of somebody else's part: its exception, its own lines, and its name."""
    if isinstance(error, RuleError):
        return complain(str(error), FAULT)
    if isinstance(error, DlmError):  # an engine that the part has driven nowhere
        return complain(f"{culprit}: {error}", FAULT)
    file = culprit.line.rpartition(":")[0]
    frames = traceback.extract_tb(error.__traceback__)
    first = next((at for at, frame in enumerate(frames) if frame.filename == file), None)
    if first is not None:
        lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames[first:])]
        with suppress(OSError):
            print("".join(lines), end="", file=sys.stderr)
    hint = f": {culprit.hint}" if culprit.hint else ""
    return complain(f"{culprit} raised {type(error).__name__}: {error}{hint}", FAULT)


def _tell_system_error(error: OSError) -> int:
    """A file that cannot be used is a wrong argument; output that cannot be written is a fault."""
    if error.filename is not None:
        return complain(str(error), USAGE)
    code = close_streams(0)
    if code or isinstance(error, BrokenPipeError):
        return code or FAULT  # told, or nobody reads any more
    return complain(str(error), FAULT)


def _optional(error: ModuleNotFoundError) -> str:
    """The optional package that is missing; empty if it is another one."""
    package: Any = (error.name or "").partition(".")[0]
    return package if package in EXTRAS else ""
