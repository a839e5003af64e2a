"""The errors a caller may meet: a wrong request, a busy engine, a broken checkpoint, or a bug."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DlmError(Exception):
    """Base of every error that `dlm` raises on purpose."""


class InvalidRequest(DlmError, ValueError):
    """The user asked for something that cannot be done; raised before any work starts.

    `param` names the field at fault, `message` states the rule, the value given and the choices
    ("must be at least 1, got 0"). Over HTTP this is a 400.
    """

    def __init__(self, param: str, message: str) -> None:
        super().__init__(param, message)
        self.param = param
        self.message = message

    def __str__(self) -> str:
        return f"`{self.param}`: {self.message}"


class Unavailable(DlmError):
    """The request is fine but cannot be served now: queue full, draining, out of pages.

    `retry_after` is the advised wait in seconds, None when no guess is possible (HTTP 429 or 503).
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CheckpointError(DlmError):
    """The weights of a checkpoint are at fault: its logits are not finite. Neither the request's
    fault nor a bug; files that cannot be read at all are an `InvalidRequest` of `model`.
    """


class EngineError(DlmError):
    """An invariant of the engine does not hold: a bug, never the fault of the request."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during `generate`. `partial` is what there is so far, in the shape of the result."""

    def __init__(self, partial: object) -> None:
        super().__init__()
        self.partial = partial


def not_finite(where: str = "", others: str = "") -> CheckpointError:
    """The error for logits that are not finite, `where` they are (" in step 3").

    `others`: guides that may have spoiled them.
    """
    whose = f", or what {others} made of them," if others else ""
    return CheckpointError(
        f"the checkpoint's logits{whose} are not finite{where}: its weights are broken, or too "
        "large for their dtype (`dlm verify` tells which)"
    )


def unknown_name(param: str, given: str, choices: Iterable[str]) -> InvalidRequest:
    """The error for a name that is not among `choices`: lists them and suggests the nearest one."""
    known = sorted(choices)
    folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(given.casefold(), folded, n=1)
    listed = ", ".join(repr(name) for name in known)
    rule = f"must be one of {listed}" if known else "has no known names"
    hint = f"; did you mean {folded[near[0]]!r}?" if near else ""
    return InvalidRequest(param, f"{rule}, got {given!r}{hint}")
