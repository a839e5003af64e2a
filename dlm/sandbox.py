"""Runs untrusted Python in a process of its own, for graders and verifiers.

What it is: a separate `python -I -S` in its own process group and an empty temporary folder, with a
minimal environment and resource limits (CPU, address space, file size, processes, core files),
killed as a group at the timeout, its output capped. What it is not: there is no namespace, no
user change and no network filter. It stops runaway model output; it does not hold a determined
attacker, who can read world-readable files, open sockets, and leave the group by `setsid`. The
limit on processes does not bind root. Run hostile code in a container or a virtual machine.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

OUTPUT_BYTES: Final = 64 * 1024
"""Most bytes that a program may write to stdout, to stderr, or to one file."""

# Limits are set inside the child, before the program is read, rather than in a `preexec_fn`: that
# hook is not safe in a threaded parent. Hard limits cannot be raised again.
BOOTSTRAP: Final = """
import resource, sys
cpu_s, memory, file_bytes = map(int, sys.argv[1:])
limits = {"CORE": 0, "CPU": cpu_s, "FSIZE": file_bytes, "NPROC": 0, "AS": memory}
for name, value in limits.items():
    try:
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
    except (OSError, ValueError):
        hard = resource.getrlimit(getattr(resource, "RLIMIT_" + name))[1]
        assert hard != resource.RLIM_INFINITY and hard <= value, "cannot limit " + name
program = compile(sys.stdin.read(), "<program>", "exec")
del sys.argv[1:]
exec(program, {"__name__": "__main__"})
"""


class SandboxResult(NamedTuple):
    """How a program ended. `reason` is empty when `ok`, else "timeout", "exit 1", "signal 9" ..."""

    ok: bool
    stdout: str
    stderr: str
    reason: str


def run_python(source: str, *, timeout_s: float, memory_mb: int) -> SandboxResult:
    """Run a program to its end and return what it wrote; never raises for what the program does.

    `timeout_s` is wall time in seconds, CPU time is limited to the next whole second above it.
    `memory_mb` is address space in MiB, of which the interpreter itself takes about 20.
    """
    limits = (math.ceil(timeout_s) + 1, memory_mb << 20, OUTPUT_BYTES)
    command = [sys.executable, "-I", "-S", "-X", "utf8", "-c", BOOTSTRAP, *map(str, limits)]
    with (
        tempfile.TemporaryDirectory(prefix="dlm-sandbox-") as folder,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            cwd=folder,
            env={"HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"},
            start_new_session=True,
        )
        timed_out = False
        try:
            process.communicate(source.encode(errors="replace"), timeout=timeout_s)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            _kill_group(process)
        reason = "timeout" if timed_out else _reason(process.returncode)
        return SandboxResult(not reason, _text(stdout), _text(stderr), reason)


def check_function(
    source: str,
    entry: str,
    tests: Sequence[tuple[Any, Any]],
    *,
    timeout_s: float = 5.0,
    memory_mb: int = 512,
) -> bool:
    """Whether the function `entry` of a program maps each test's input to its expected value.

    `tests` are (input, expected) pairs of JSON values. The results come back after a random nonce
    and are compared here: the expected values never enter the sandbox, so that a program can pass
    neither by printing a verdict nor by reading one.
    """
    assert entry.isidentifier(), f"`entry` must be an identifier, got {entry!r}"
    nonce = secrets.token_hex(16)
    inputs = json.dumps([given for given, _ in tests])
    harness = (
        f"\nimport json as json_{nonce}\n"
        f"results_{nonce} = [{entry}(given) for given in json_{nonce}.loads({inputs!r})]\n"
        f"print('\\n{nonce}' + repr(results_{nonce}))\n"
    )
    result = run_python(source + harness, timeout_s=timeout_s, memory_mb=memory_mb)
    expected = nonce + repr([value for _, value in tests])
    return result.ok and result.stdout.rstrip("\n").rsplit("\n", 1)[-1] == expected


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the program and its children, and reap it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def _reason(returncode: int) -> str:
    if returncode == 0:
        return ""
    return f"exit {returncode}" if returncode > 0 else f"signal {-returncode}"


def _text(file: Any) -> str:
    file.seek(0)
    content: bytes = file.read(OUTPUT_BYTES)
    return content.decode(errors="replace")
