"""The two interpreters of a run: started, followed until there is a verdict, and killed."""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from dlm.sandbox.backends import Sandbox
from dlm.sandbox.ends import Ends, boot_arguments
from dlm.sandbox.seccomp import seccomp_filter

OUTPUT_BYTES: Final = 64 * 1024
"""Bytes that are kept of a program's stdout, and of its stderr; the rest is lost."""
START_S: Final = 60.0
"""Seconds in which the interpreters must have begun."""
GRACE_S: Final = 1.0
"""Seconds in which a verdict must follow the end of the program's process, and the other way."""
MOST_WAITED: Final = 3
"""How many times its limit a run may wait, beside it, for a processor that others have."""
READY: Final = b"ready\n"
LEFT: Final = "left"
"""Verdict of the tests' end on a program whose process is gone."""


@dataclass(slots=True)
class Run:
    """Two processes and their outcome.

    program, tester: the processes
    proof: pipe on which the program shows that it has begun
    verdict: of the tests' end, None before there is one
    late: True if it ran too long
    codes: exit codes of both, None for one that was still running
    kept: stream -> the beginning of its output
    """

    program: subprocess.Popen[bytes]
    tester: subprocess.Popen[bytes]
    proof: IO[bytes]
    verdict: tuple[str, str] | None = None
    late: bool = False
    codes: tuple[int | None, int | None] = (None, None)
    kept: dict[str, bytearray] = field(default_factory=dict)

    def follow(self, given: bytes, nonce: bytes, timeout_s: float) -> None:
        """Give the tests' end its task, keep the output, and wait for a verdict."""
        assert self.tester.stdin is not None
        with selectors.DefaultSelector() as selector:
            for name, file in self._streams():
                os.set_blocking(file.fileno(), False)
                self.kept[name] = bytearray()
                selector.register(file, selectors.EVENT_READ, name)
            os.set_blocking(self.tester.stdin.fileno(), False)
            selector.register(self.tester.stdin, selectors.EVENT_WRITE, "given")
            begun, deadline, gone = math.inf, time.monotonic() + START_S, math.inf
            while self.verdict is None and (now := time.monotonic()) < gone:
                if now >= deadline:
                    deadline = begun + timeout_s + min(self._waited(), MOST_WAITED * timeout_s)
                    if begun == math.inf or now >= deadline:
                        self.late = True
                        break
                for key, _ in selector.select(min(0.05, deadline - now)):
                    if key.data == "given":
                        given = self._give(selector, given)
                    elif not self._keep(key.data, key.fd):
                        selector.unregister(key.fileobj)
                self._judge(nonce)
                if begun == math.inf and self.begun:
                    begun = time.monotonic()
                    deadline = begun + timeout_s
                if gone == math.inf and self._ended():
                    gone = time.monotonic() + GRACE_S
            if self.verdict == (LEFT, ""):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.program.wait(GRACE_S)
            self.codes = self.program.poll(), self.tester.poll()
            for name, file in self._streams():
                while self._keep(name, file.fileno()) and len(self.kept[name]) < OUTPUT_BYTES:
                    continue

    @property
    def begun(self) -> bool:
        """True once both interpreters have started to run our code."""
        return self.kept["proof"].startswith(READY) and self.kept["stdout"].startswith(READY)

    def _streams(self) -> Iterator[tuple[str, IO[bytes]]]:
        yield "proof", self.proof
        for process, prefix in ((self.program, ""), (self.tester, "tests' ")):
            assert process.stdout is not None
            assert process.stderr is not None
            yield f"{prefix}stdout", process.stdout
            yield f"{prefix}stderr", process.stderr

    def _give(self, selector: selectors.BaseSelector, given: bytes) -> bytes:
        """Write as much of the task as fits; return the rest."""
        stdin = self.tester.stdin
        assert stdin is not None
        try:
            given = given[os.write(stdin.fileno(), given) :]
        except BlockingIOError:
            return given
        except OSError:
            given = b""
        if not given:
            selector.unregister(stdin)
            stdin.close()
        return given

    def _keep(self, name: str, number: int) -> bool:
        """Read from a stream once; False if it has ended, or has nothing now."""
        try:
            data = os.read(number, OUTPUT_BYTES)
        except OSError:
            return False
        kept = self.kept[name]
        kept += data[: OUTPUT_BYTES + len(READY) - len(kept)]
        return bool(data)

    def _judge(self, nonce: bytes) -> None:
        """Take the verdict, once it is there."""
        told = bytes(self.kept["proof"]).removeprefix(READY)
        if told.startswith(nonce + b" ") and b"\n" in told:
            verdict, _, detail = told[len(nonce) + 1 :].decode(errors="replace").partition("\n")
            self.verdict = verdict, detail

    def _waited(self) -> float:
        """Seconds for which the two ends were ready to run and had no processor."""
        return sum(max(map(_delay, _family(one.pid))) for one in (self.program, self.tester))

    def _ended(self) -> bool:
        """True if one of the two processes has ended."""
        return self.program.poll() is not None or self.tester.poll() is not None

    def kill(self) -> None:
        """Kill both and their children, and reap them."""
        for process in (self.program, self.tester):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _family(process: int) -> Iterator[int]:
    """A process and all that descend from it, as far as the kernel knows."""
    yield process
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            yield from _family(int(child))


def _delay(process: int) -> float:
    """Seconds for which a process has waited for a processor, 0 if that is not known."""
    try:
        return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def start(
    stack: contextlib.ExitStack, box: Sandbox, folder: Path, limits: Mapping[str, int]
) -> Run:
    """Start both interpreters at once; each gets its ends of the pipes alone."""
    os.chmod(folder, 0o711)
    packages, work = box.show_packages(folder), folder / "work"
    work.mkdir()
    os.chmod(work, 0o777)  # another user may have to write here
    with contextlib.ExitStack() as theirs:
        asked, asking, told, telling, proof, proving = (
            number for _ in range(3) for number in os.pipe()
        )
        for number in (asked, asking, told, telling, proving):
            theirs.callback(os.close, number)
        said = stack.enter_context(open(proof, "rb", buffering=0))
        ends = Ends(1, asked, telling), Ends(proving, told, asking)
        hides = box.kind == "rlimit"
        arguments = [
            boot_arguments(end, where, limits, hides=hides)
            for end, where in zip(ends, (packages, box.packages_of_tests()), strict=True)
        ]
        program = _interpreter(stack, box, work, arguments[0], ends[0])
        try:
            tester = _interpreter(stack, box, folder, arguments[1], ends[1])
        except OSError:
            program.kill()
            program.wait()
            raise
    return Run(program, tester, said)


def _interpreter(
    stack: contextlib.ExitStack, box: Sandbox, place: Path, arguments: list[str], ends: Ends
) -> subprocess.Popen[bytes]:
    """Start one interpreter; its pipes are closed with the stack."""
    judges = ends.proof != 1
    with _filter(box) as seccomp:
        process = subprocess.Popen(
            box.command(arguments, seccomp),
            stdin=subprocess.PIPE if judges else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=place,
            env=box.environment(place),
            start_new_session=True,
            pass_fds=[n for n in (*ends, seccomp) if n is not None and n > 2],
        )
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            stack.callback(pipe.close)
    return process


@contextlib.contextmanager
def _filter(box: Sandbox) -> Iterator[int | None]:
    """The system call filter as an open file, where the sandbox takes one."""
    code = seccomp_filter() if box.kind == "bwrap" else None
    if code is None:
        yield None
        return
    with tempfile.TemporaryFile() as file:
        file.write(code)
        file.seek(0)
        yield file.fileno()
