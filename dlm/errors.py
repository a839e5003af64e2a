"""The errors a caller may meet: a wrong request, a busy engine, a broken checkpoint, a rule of
somebody else's at fault, or a bug.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace, TracebackType
from typing import Any, Final

LONGEST: Final = 360
"""Characters of a message: more hides the fault."""
SHOWN: Final = 80
"""Characters of a value in a message."""
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class DlmError(Exception):
    """Base of every error that `dlm` raises on purpose."""


class InvalidRequest(DlmError, ValueError):
    """The user asked for something that cannot be done; raised before any work starts.

    `param` names the field at fault, `message` states the rule, the value given and the choices
    ("must be at least 1, got 0"), on one line that is cut in its middle where it is too long. Over
    HTTP this is a 400.
    """

    def __init__(self, param: str, message: str) -> None:
        param, message = shortened(param, SHOWN), shortened(message, LONGEST)
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
    """Ctrl-C during `generate`. `partial` is the result so far, in its usual shape."""

    def __init__(self, partial: object) -> None:
        super().__init__()
        self.partial = partial


@dataclass(frozen=True, slots=True)
class Culprit:
    """A part that somebody else wrote and that is at fault.

    kind: of the part
    name: of its class
    line: "file.py:12"; empty if it is not known
    hint: a likely remedy; empty if there is none
    """

    kind: str
    name: str
    line: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.kind} part {self.name}" + (f" ({self.line})" if self.line else "")


class RuleError(DlmError, TypeError):
    """A part that a user wrote has answered what no part may answer; `culprit` names it.

    What such a part raises itself is not wrapped: it arrives as it was raised, with a note that
    names the part (see `culprit_of`).
    """

    def __init__(self, culprit: Culprit, message: str) -> None:
        super().__init__(culprit, message)
        self.culprit = culprit
        self.message = shortened(message, LONGEST)

    def __str__(self) -> str:
        return f"{self.culprit}: {self.message}"


def culprit_of(error: BaseException) -> Culprit | None:
    """The user's part that an error comes from; None if it comes from none."""
    found = getattr(error, "culprit", None)
    return found if isinstance(found, Culprit) else None


class blaming:
    """`with blaming(kind, part):` marks exceptions of a user's part as its fault.

    The exception stays what it is and gains a note and a `culprit`. Errors of dlm itself, and those
    of dlm's own parts, pass unchanged.
    """

    __slots__ = ("_kind", "_part")

    def __init__(self, kind: str, part: Any) -> None:
        self._kind, self._part = kind, part

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Mark an exception that comes from a user's part."""
        if not isinstance(error, Exception) or isinstance(error, DlmError):
            return
        if is_foreign(self._part) and culprit_of(error) is None:
            line, hint = _line_of(trace, self._part), _hint(error, trace, self._part)
            charge(error, Culprit(self._kind, name_of(self._part), line, hint))


def charge(error: Exception, culprit: Culprit) -> None:
    """Note on an exception whose fault it is, and the remedy."""
    error.add_note(f"raised in the {culprit}" + (f": {culprit.hint}" if culprit.hint else ""))
    with suppress(AttributeError):  # of a class with slots; others take any attribute
        error.culprit = culprit  # type: ignore[attr-defined]


def is_foreign(part: Any) -> bool:
    """True if a part, or a class of parts, is no part of dlm's own."""
    return _class_of(part).__module__.partition(".")[0] != "dlm"


def name_of(part: Any) -> str:
    """The name of a part's class, as its module spells it."""
    return _class_of(part).__qualname__


def rule_error(kind: str, part: Any, method: str, message: str) -> RuleError:
    """The error for what `method` of a part has answered; its line is where the method begins."""
    return RuleError(culprit(kind, part, method), f"`{method}` {message}")


def culprit(kind: str, part: Any, method: str) -> Culprit:
    """A part as the one at fault; its line is where `method` begins."""
    code = getattr(getattr(_class_of(part), method, None), "__code__", None)
    line = "" if code is None else f"{code.co_filename}:{code.co_firstlineno}"
    return Culprit(kind, name_of(part), line)


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
    near = nearest(given, known)
    rule = f"must be one of {listed(known)}" if known else "has no known names"
    hint = f"; did you mean {near!r}?" if near else ""
    return InvalidRequest(param, f"{rule}, got {shown(given)}{hint}")


def listed(names: Iterable[str]) -> str:
    """Names as messages list them: quoted, in alphabetical order."""
    return ", ".join(repr(name) for name in sorted(names))


def needs_extra(package: str, extra: str) -> str:
    """The words for an optional package that is missing, with the command that installs it."""
    command = f"pip install -c constraints.txt '.[{extra}]'"
    return f"needs the package {package!r}; in a clone of dlm: {command}"


def nearest(given: str, choices: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The one of `choices` that `given` resembles most, None if it resembles none."""
    folded = {name.casefold(): name for name in choices}
    near = difflib.get_close_matches(given[:SHOWN].casefold(), folded, n=1, cutoff=cutoff)
    return folded[near[0]] if near else None


def shown(value: object, most: int = SHOWN) -> str:
    """A value as messages show it: on one line, shortened, whatever its `repr` does."""
    if isinstance(value, str):  # its repr would be made in full
        value = value if len(value) <= most else value[:most] + value[-most:]
    try:
        text = repr(value)
    except Exception:  # an integer of thousands of digits, or somebody's own class
        text = f"a very large {type(value).__name__}"
    return shortened(text, most)


def shortened(text: str, most: int) -> str:
    """`text` on one line, its middle left out where it has more than `most` characters."""
    line = " ".join(text.split()) if len(text) < 20 * most else text
    if len(line) > most:
        half = (most - 3) // 2
        line = " ".join(f"{line[:half]}...{line[-half:]}".split())
    return line


def require_text(param: str, text: str) -> str:
    """`text`, unless it holds half of a surrogate pair, which no encoding has.

    Raises `InvalidRequest` naming `param`.
    """
    if found := _SURROGATE.search(text):
        raise InvalidRequest(
            param,
            f"must be UTF-8 text, got the lone surrogate {found[0]!r} at {found.start()}, which "
            "stands for no character",
        )
    return text


def _class_of(part: Any) -> type:
    return part if isinstance(part, type) else type(part)


def _line_of(trace: TracebackType | None, part: Any) -> str:
    """The innermost line of a traceback in the file of the part's class, or else of its first
    frame that is not the caller's.
    """
    cls, frames = _class_of(part), []
    while trace is not None:
        frames.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    own = [place for place in frames if place[0].f_globals.get("__name__") == cls.__module__]
    if not own and len(frames) < 2:
        return ""
    frame, number = own[-1] if own else frames[1]
    return f"{frame.f_code.co_filename}:{number}"


def _hint(error: Exception, trace: TracebackType | None, part: Any) -> str:
    """A remedy for the usual mistakes in reading a view; empty for other exceptions."""
    if isinstance(error, AttributeError) and error.obj is not None:
        return _member_hint(error.obj, str(error.name), part)
    while trace is not None and "NoneType" in str(error):
        read, found = trace.tb_frame.f_code.co_names, trace.tb_frame.f_locals.values()
        for table in (getattr(value, "stats", None) for value in found):
            for name in getattr(table, "_fields", ()):
                if name in read and getattr(table, name) is None:
                    return f"`view.stats.{name}` is there for parts with {_needing(name)}"
        trace = trace.tb_next
    return ""


def _member_hint(view: Any, name: str, part: Any) -> str:
    """The place of a member that a view, or a table of it, does not have."""
    if name in getattr(getattr(view, "stats", None), "_fields", ()):
        return f"read `view.stats.{name}`, of parts with {_needing(name)}"
    if isinstance(view, SimpleNamespace):
        if name in getattr(part, "__dataclass_fields__", ()):
            return f"`view.params` holds the numbers alone; read `self.{name}`"
        known = list(vars(view))
    else:
        known = [n for n in getattr(view, "_fields", ()) if not n.startswith("_")]
    if near := nearest(name, known):
        return f"did you mean {near!r}?"
    return f"it has {listed(known)}" if known else ""


def _needing(name: str) -> str:
    return f"`needs = frozenset({{{name!r}}})`"
