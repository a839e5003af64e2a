"""One program, from its start to its verdict."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import signal
import subprocess
import tempfile
from enum import StrEnum
from typing import IO, Any, Final, NamedTuple

from dlm.errors import EngineError
from dlm.sandbox.backends import Sandbox, best_sandbox
from dlm.sandbox.seccomp import seccomp_filter

OUTPUT_BYTES: Final = 64 * 1024
"""Most bytes that a program may write to stdout, to stderr, or to one file."""

# Limits are set inside the child, before the program is read, rather than in a `preexec_fn`: that
# hook is not safe in a threaded parent. Hard limits cannot be raised again. What proves that the
# program came to its end is read only then.
BOOTSTRAP: Final = """
import resource, sys
cpu_s, memory, file_bytes = map(int, sys.argv[1:])
limits = {"CORE": 0, "CPU": cpu_s, "FSIZE": file_bytes, "NPROC": 0, "NOFILE": 64, "AS": memory}
for name, value in limits.items():
    try:
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
    except (OSError, ValueError):
        hard = resource.getrlimit(getattr(resource, "RLIMIT_" + name))[1]
        assert hard != resource.RLIM_INFINITY and hard <= value, "cannot limit " + name
del sys.argv[1:]
given = sys.stdin.buffer
print("ready", flush=True)
source = given.read(int(given.readline())).decode()
try:
    program = compile(source, "<program>", "exec")
except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
    print("syntax:", error, file=sys.stderr)
    sys.exit(2)
exec(program, {"__name__": "__main__"})
print("\\n" + given.read().decode(), flush=True)
"""
READY: Final = b"ready\n"
NAMED: Final = (
    ("AssertionError", "assertion"),
    ("MemoryError", "memory"),
    ("syntax:", "syntax"),
)
"""How the last line of an error begins, and what that means."""


class SandboxError(EngineError):
    """A program could not be run, which says nothing of it."""


class Verdict(StrEnum):
    """How a program ended: `UNFINISHED` says that it left before its end without an error, and
    `SANDBOX` that it never began, which is not the program's fault.
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
    """How a program ended and what it wrote. `detail`: the last line of its error or its signal."""

    verdict: Verdict
    stdout: str
    stderr: str
    detail: str

    @property
    def ok(self) -> bool:
        """Whether it came to its end."""
        return self.verdict == Verdict.PASSED


def run_python(
    source: str, *, timeout_s: float, memory_mb: int, sandbox: Sandbox | None = None
) -> Outcome:
    """Run a program to its end and return what it wrote; never raises for what the program does.

    `timeout_s` is wall time in seconds, CPU time is limited to the next whole second above it.
    `memory_mb` is address space in MiB, of which the interpreter itself takes about 20. `sandbox`
    None is the strongest that works here.
    """
    box, nonce = sandbox or best_sandbox(), secrets.token_hex(16)
    limits = (math.ceil(timeout_s) + 1, memory_mb << 20, OUTPUT_BYTES)
    code = source.encode(errors="replace")
    given = b"%d\n%b%b" % (len(code), code, nonce.encode())
    with (
        tempfile.TemporaryDirectory(prefix="dlm-sandbox-") as folder,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
        _filter(box) as seccomp,
    ):
        os.chmod(folder, 0o777)  # another user may have to write here
        number = None if seccomp is None else seccomp.fileno()
        try:
            process = subprocess.Popen(
                box.command(["-c", BOOTSTRAP, *map(str, limits)], number),
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                cwd=folder,
                env={"HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"},
                start_new_session=True,
                pass_fds=() if number is None else (number,),
            )
        except OSError as error:
            return Outcome(Verdict.SANDBOX, "", "", str(error))
        timed_out = False
        try:
            process.communicate(given, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            _kill_group(process)
        return _outcome(process.returncode, timed_out, _read(stdout), _read(stderr), nonce)


@contextlib.contextmanager
def _filter(box: Sandbox) -> Any:
    """The system call filter as an open file, where the sandbox takes one."""
    code = seccomp_filter() if box.kind == "bwrap" else None
    if code is None:
        yield None
        return
    with tempfile.TemporaryFile() as file:
        file.write(code)
        file.seek(0)
        yield file


def _outcome(code: int, timed_out: bool, written: bytes, errors: bytes, nonce: str) -> Outcome:
    """What the end of a process says."""
    begun, said = written.startswith(READY), written.removeprefix(READY)
    stdout, stderr = said.decode(errors="replace"), errors.decode(errors="replace")
    killer = -code if code < 0 else max(0, code - 128)  # a shell or bwrap says 128 and the signal
    detail = _last_line(stderr) or (f"signal {killer}" if killer else "")
    proof = f"\n{nonce}\n"
    if stdout.endswith(proof) and code == 0:
        return Outcome(Verdict.PASSED, stdout.removesuffix(proof), stderr, "")
    if not begun:
        return Outcome(Verdict.SANDBOX, stdout, stderr, detail or "it never began")
    if timed_out or killer == signal.SIGXCPU:
        return Outcome(Verdict.TIMEOUT, stdout, stderr, detail)
    if code == 0:
        return Outcome(Verdict.UNFINISHED, stdout, stderr, detail)
    named = (verdict for start, verdict in NAMED if detail.startswith(start))
    return Outcome(Verdict(next(named, "exception")), stdout, stderr, detail)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the program and its children, and reap it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def _read(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(OUTPUT_BYTES)
