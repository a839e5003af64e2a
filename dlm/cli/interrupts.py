"""Ctrl-C: at any moment exit code 130, no traceback, and the text so far where it is of use."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Any, Final, NoReturn

INTERRUPTED: Final = 130
"""The exit code of what Ctrl-C has ended."""


def leave(number: int, frame: FrameType | None) -> NoReturn:
    """Handle Ctrl-C, or SIGTERM, where a user would miss nothing yet: end the process.

    An exception could strike in the middle of an import or of cleaning up, which would report it.
    """
    os._exit(128 + number)


def leave_at_once() -> None:
    """Let Ctrl-C end the process from here on, unless whoever started it has switched that off."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)
        sys.unraisablehook = _unraisable


def leave_on_terminate() -> None:
    """Let SIGTERM end the process from here on; else the first one of a container ignores it."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, leave)


class Catching:
    """`with Catching():` Ctrl-C raises `KeyboardInterrupt` inside: the body has something to show
    or to clean up. Without `leave_at_once` it does so anyway, and this changes nothing.
    """

    def __init__(self) -> None:
        self._changed = False

    def __enter__(self) -> None:
        """Let it raise."""
        if signal.getsignal(signal.SIGINT) is leave:
            self._changed = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let it end the process again."""
        if self._changed:
            signal.signal(signal.SIGINT, leave)


def _unraisable(caught: Any) -> None:
    """Ctrl-C in a finaliser, where an exception is lost, ends the process all the same."""
    if isinstance(caught.exc_value, KeyboardInterrupt):
        os._exit(INTERRUPTED)
    sys.__unraisablehook__(caught)
