"""Ways to keep a program apart, from the strongest to the weakest, and which of them works here."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dlm.errors import InvalidRequest, unknown_name

KINDS: Final = ("bwrap", "unshare", "rlimit")
NOBODY: Final = "65534"
SPARE_BYTES: Final = 16 << 20
"""What a program may write into its folder under `bwrap`."""
FLAGS: Final = ("-I", "-S", "-X", "utf8")
INIT: Final = ("sh", "-c", '"$@"; exit $?', "init")
"""The first process of a namespace: no signal of its own reaches it, so it is not the program."""
AS_NOBODY: Final = ("setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A way of keeping programs apart, and the interpreter that works in it.

    `isolates`: the program sees no network and nothing of the user.
    """

    kind: str
    python: str

    @property
    def isolates(self) -> bool:
        """Whether it holds programs that mean harm."""
        return self.kind != "rlimit"

    def command(self, program: Sequence[str], seccomp: int | None = None) -> list[str]:
        """The command that runs the interpreter with `program`; `seccomp`: a file of the filter."""
        run = [self.python, *FLAGS, *program]
        if self.kind == "bwrap":
            return [*_dropped(), *_bwrap(self.python, seccomp), *run]
        if self.kind == "unshare":
            spaces = ("--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child")
            return ["unshare", *spaces, "--mount-proc", *INIT, *AS_NOBODY, "--no-new-privs", *run]
        return run

    def works(self) -> bool:
        """Whether a program runs in it on this machine."""
        try:
            done = subprocess.run(
                self.command(["-c", "print(6 * 7)"]),
                capture_output=True,
                timeout=20,
                cwd="/",
                check=False,
            )
        except (OSError, subprocess.SubprocessError):
            return False
        return done.stdout == b"42\n"


def find_sandbox(*kinds: str) -> Sandbox:
    """The first of `kinds` (none: of all) that works here.

    Raises `InvalidRequest` for an unknown kind, and where none works.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise unknown_name("sandbox", kind, KINDS)
    for kind in kinds or KINDS:
        for python in _interpreters(kind):
            candidate = Sandbox(kind, python)
            if candidate.works():
                return candidate
    wanted = ", ".join(kinds or KINDS)
    raise InvalidRequest("sandbox", f"must be one that works on this machine; {wanted}: none does")


@functools.cache
def best_sandbox() -> Sandbox:
    """The strongest one, looked for once in a process."""
    return find_sandbox()


def _interpreters(kind: str) -> Iterator[str]:
    """Our own interpreter first; the system's where another user cannot reach ours."""
    own = str(Path(sys.executable).resolve())
    if kind != "rlimit" and os.name != "posix":
        return
    yield own
    system = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin")
    if kind != "rlimit" and system is not None and str(Path(system).resolve()) != own:
        yield system


def _dropped() -> Sequence[str]:
    """Root must become somebody else first: limits on processes do not bind it."""
    return AS_NOBODY if os.geteuid() == 0 else ()


def _bwrap(python: str, seccomp: int | None) -> list[str]:
    """Namespaces of its own, `/usr` to read, and an empty folder in memory."""
    found = ["bwrap", "--unshare-user", "--disable-userns", "--unshare-all"]
    found += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    for name, value in (("PATH", "/usr/bin:/bin"), ("LANG", "C.UTF-8"), ("HOME", "/tmp")):
        found += ["--setenv", name, value]
    found += ["--ro-bind", "/usr", "/usr"]
    for path in ("/bin", "/lib", "/lib64"):
        if os.path.islink(path):
            found += ["--symlink", os.readlink(path).lstrip("/"), path]
        elif os.path.isdir(path):
            found += ["--ro-bind", path, path]
    home = str(Path(python).parents[1])
    if not home.startswith("/usr"):
        found += ["--ro-bind", home, home]
    found += ["--proc", "/proc", "--dev", "/dev", "--size", str(SPARE_BYTES), "--tmpfs", "/tmp"]
    found += ["--chdir", "/tmp", "--uid", NOBODY, "--gid", NOBODY]
    return found if seccomp is None else [*found, "--seccomp", str(seccomp)]
