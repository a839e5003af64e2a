"""One program with its tests, from start to verdict."""

from __future__ import annotations

import contextlib
import math
import secrets
import signal
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from dlm.errors import EngineError
from dlm.sandbox.backends import Sandbox, best_sandbox
from dlm.sandbox.ends import Task, parcel
from dlm.sandbox.processes import LEFT, OUTPUT_BYTES, READY, Run, start

FILE_BYTES: Final = 1 << 20
"""Most bytes that a program may write to one file."""
FILES: Final = 256
"""Most files that a program may have open."""
NAMED: Final = (
    ("AssertionError", "assertion"),
    ("MemoryError", "memory"),
    ("syntax:", "syntax"),
)
"""How the last line of an error begins, and what that means."""


class SandboxError(EngineError):
    """A program could not be run, which is no fault of it."""


class Verdict(StrEnum):
    """End of a program. `UNFINISHED`: it left before its last line without an error. `SANDBOX`: it
    never began, which is not the program's fault.
    """

    PASSED = "passed"
    ASSERTION = "assertion"
    EXCEPTION = "exception"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    SYNTAX = "syntax"
    UNFINISHED = "unfinished"
    SANDBOX = "sandbox error"


class Outcome(NamedTuple):
    """End of a program and the output of it and its tests.

    verdict: end of the program
    stdout: at most `OUTPUT_BYTES` of each process
    stderr: at most `OUTPUT_BYTES` of each process
    detail: last line of its error, or its signal
    """

    verdict: Verdict
    stdout: str
    stderr: str
    detail: str

    @property
    def ok(self) -> bool:
        """True if the program and its tests came to their end."""
        return self.verdict == Verdict.PASSED


def run_python(
    source: str,
    tests: str = "",
    *,
    entry: str = "",
    timeout_s: float,
    memory_mb: int,
    sandbox: Sandbox | None = None,
) -> Outcome:
    """Run a program, then tests that use its names; never raises for anything the program does.

    Both run in a namespace without a name, so that a main guard does not run, each in a process and
    a sandbox of its own: the program's has an empty stdin, and a pipe on which it is asked for what
    the tests need. `timeout_s` is wall time in seconds from when both interpreters have begun, less
    what they wait for a processor on a busy machine; CPU time is limited to the next whole second
    above it. `memory_mb` is address space in MiB, of which the interpreter itself takes about 20.
    `entry` is a name that the program must define: the tests then have it as `entry`, and no other
    name of the program's. `sandbox` None is the strongest that works here.
    """
    box, nonce = sandbox or best_sandbox(), secrets.token_hex(16)
    limits = {
        "CORE": 0,
        "CPU": math.ceil(timeout_s) + 1,
        "FSIZE": FILE_BYTES,
        "NOFILE": FILES,
        "NPROC": box.task_limit(),
        "AS": memory_mb << 20,
    }
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dlm-sandbox-"))
        try:
            run = start(stack, box, Path(folder), limits)
        except OSError as error:
            return Outcome(Verdict.SANDBOX, "", "", str(error))
        try:
            run.follow(parcel(Task(nonce, source, tests, entry)), nonce.encode(), timeout_s)
        finally:
            run.kill()
        return _outcome(run)


def _outcome(run: Run) -> Outcome:
    """Derive the outcome from the ends of both processes."""
    kept = {name: bytes(data).removeprefix(READY) for name, data in run.kept.items()}
    texts = {name: data[:OUTPUT_BYTES].decode(errors="replace") for name, data in kept.items()}
    stdout = texts["stdout"] + texts["tests' stdout"]
    stderr = texts["stderr"] + texts["tests' stderr"]
    last = _last_line(stderr)
    if run.verdict is not None and run.verdict[0] != LEFT:
        return Outcome(Verdict(run.verdict[0]), stdout, stderr, run.verdict[1])
    if not run.begun:
        return Outcome(Verdict.SANDBOX, stdout, stderr, last or "it never began")
    return Outcome(*_unsaid(run, stdout, stderr, last))


def _unsaid(run: Run, stdout: str, stderr: str, last: str) -> tuple[Verdict, str, str, str]:
    """Derive a verdict from exit codes if the tests' interpreter gave none."""
    ended, tests_ended = map(_killer, run.codes)
    if run.late or signal.SIGXCPU in (ended, tests_ended):
        return Verdict.TIMEOUT, stdout, stderr, last
    if run.codes[0] is None and run.codes[1] is not None and run.verdict is None:
        return Verdict.EXCEPTION, stdout, stderr, last or "its tests were ended"
    if not run.codes[0]:
        return Verdict.UNFINISHED, stdout, stderr, last
    detail = last or (f"signal {ended}" if ended else "")
    named = (verdict for start, verdict in NAMED if detail.startswith(start))
    return Verdict(next(named, "exception")), stdout, stderr, detail


def _killer(code: int | None) -> int:
    """The signal that ended a process; a shell or bwrap adds 128 to it."""
    return 0 if code is None else -code if code < 0 else max(0, code - 128)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
