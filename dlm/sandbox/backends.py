"""Ways to keep a program apart, from the strongest to the weakest, and which of them works here."""

from __future__ import annotations

import functools
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from dlm.errors import InvalidRequest, unknown_name

KINDS: Final = ("bwrap", "unshare", "rlimit")
NOBODY: Final = 65534
USERS: Final = range(0x6D000000, 0x6E000000)
"""Numbers of users that nobody is: a run under one of them shares no process and no limit."""
SPARE_BYTES: Final = 16 << 20
"""What a program may write into its folder under `bwrap`."""
TASKS: Final = 64
"""Most processes and threads that a program may have at once."""
PACKAGES: Final = ("numpy", "numpy.libs")
"""What a program may import beside the standard library: graders run where these are."""
BOUND_AT: Final = "/packages"
FLAGS: Final = ("-I", "-S", "-X", "utf8")
ENVIRONMENT: Final[Mapping[str, str]] = {
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    "MALLOC_ARENA_MAX": "2",  # else each thread takes 64 MiB of address space
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
OURS: Final = str(Path(__file__).resolve().parents[1])
"""The folder of `dlm`, which holds the solutions of benchmarks: nothing in a sandbox needs it."""
INIT: Final = ("sh", "-c", '"$1" -t tmpfs -o ro,size=4k tmpfs "$2" && shift 2 && "$@"; exit $?')
"""The first process of a namespace: no signal of its own reaches it, so it is not the program.

It lays an empty folder over `OURS`, which the namespace alone sees.
"""
SPACES: Final = (
    *("--mount", "--propagation", "private", "--net", "--ipc", "--uts"),
    *("--pid", "--fork", "--kill-child"),
)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A way of keeping programs apart, and the interpreter that works in it.

    kind: bwrap, unshare or rlimit
    python: path of the interpreter
    packages: folders of packages that programs may import
    drops: True if, under `rlimit`, each process becomes a user of its own, which needs root
    """

    kind: str
    python: str
    packages: tuple[str, ...] = ()
    drops: bool = False

    @property
    def isolates(self) -> bool:
        """True if the backend contains hostile programs: they see no network, no other process and
        nothing of `dlm`. Of the machine's files they see `/usr`, the interpreter and the packages
        under `bwrap`, and all that every user may read under `unshare`.
        """
        return self.kind != "rlimit"

    def command(self, program: Sequence[str], seccomp: int | None = None) -> list[str]:
        """The command that runs the interpreter with `program`; `seccomp`: a file of the filter."""
        run = [self.python, *FLAGS, *program]
        if self.kind == "bwrap":
            root = os.geteuid() == 0  # limits on processes do not bind root
            return [*(_as_nobody_else() if root else ()), *self._bwrap(seccomp), *run]
        if self.kind == "unshare":
            inside = (*_as_nobody_else(), "--no-new-privs")
            init = (*INIT, "init", _tool("mount"), OURS)
            return [_tool("unshare"), *SPACES, "--mount-proc", *init, *inside, *run]
        return [*_as_nobody_else(), "--no-new-privs", *run] if self.drops else run

    def environment(self, folder: Path) -> dict[str, str]:
        """The environment of a program whose own folder this is."""
        return {**ENVIRONMENT, "HOME": str(folder), "TMPDIR": str(folder)}

    def show_packages(self, folder: Path) -> str:
        """Return the folder in which a program finds the packages.

        Without a bind mount this is a new folder of links inside `folder`.
        """
        if not self.packages or self.kind == "bwrap":
            return BOUND_AT if self.packages else ""
        links = folder / "packages"
        links.mkdir()
        for path in self.packages:
            (links / Path(path).name).symlink_to(path)
        return str(links)

    def packages_of_tests(self) -> str:
        """Return the folder in which the tests' interpreter finds the packages.

        Without a bind mount this is the installed folder itself: a program has no more write
        permission there than the user that runs it.
        """
        if not self.packages or self.kind == "bwrap":
            return BOUND_AT if self.packages else ""
        return str(Path(self.packages[0]).parent)

    def task_limit(self) -> int:
        """The limit on processes that leaves a program `TASKS`.

        It counts all that the user has, unless the user is new or in a namespace of its own.
        """
        release = tuple(int(part) for part in os.uname().release.split(".")[:2] if part.isdigit())
        apart = self.kind == "unshare" or self.drops or os.geteuid() == 0
        if apart or (self.kind == "bwrap" and release >= (5, 14)):
            return TASKS
        return TASKS + sum(1 for _ in _tasks_of(os.geteuid()))

    def works(self) -> bool:
        """True if a small program runs in this sandbox on this machine."""
        return _says_42(self.command(["-c", "import json, resource; print(6 * 7)"]))

    def _bwrap(self, seccomp: int | None) -> list[str]:
        """Namespaces of its own, folders to read, and an empty folder in memory."""
        found = [_tool("bwrap"), "--unshare-user", "--disable-userns", "--unshare-all"]
        found += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
        for name, value in (*ENVIRONMENT.items(), ("HOME", "/tmp")):
            found += ["--setenv", name, value]
        found += self._bound()
        for path in self.packages:
            found += ["--ro-bind", path, f"{BOUND_AT}/{Path(path).name}"]
        found += ["--proc", "/proc", "--dev", "/dev", "--size", str(SPARE_BYTES), "--tmpfs", "/tmp"]
        found += ["--chdir", "/tmp", "--uid", str(NOBODY), "--gid", str(NOBODY)]
        return found if seccomp is None else [*found, "--seccomp", str(seccomp)]

    def _bound(self) -> list[str]:
        """Arguments of `bwrap` that mount `/usr` and the interpreter and hide `dlm` inside them."""
        found, shown = [], ["/usr"]
        for path in ("/bin", "/lib", "/lib64"):
            if os.path.islink(path):
                found += ["--symlink", os.readlink(path).lstrip("/"), path]
            elif os.path.isdir(path):
                shown.append(path)
        home = str(Path(self.python).parents[1])
        if not home.startswith("/usr"):
            shown.append(home)
        for path in shown:
            found += ["--ro-bind", path, path]
        if any(Path(OURS).is_relative_to(Path(path).resolve()) for path in shown):
            found += ["--size", "4096", "--tmpfs", OURS, "--remount-ro", OURS]
        return found


def find_sandbox(*kinds: str) -> Sandbox:
    """The first of `kinds` (none: of all) that works here.

    Raises `InvalidRequest` for an unknown kind, and if none works.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise unknown_name("sandbox", kind, KINDS)
    for kind in kinds or KINDS:
        for candidate in _candidates(kind):
            if candidate.works():
                return replace(candidate, packages=_packages(candidate))
    wanted = ", ".join(kinds or KINDS)
    raise InvalidRequest("sandbox", f"must be one that works on this machine; {wanted}: none does")


@functools.cache
def best_sandbox() -> Sandbox:
    """The strongest one, looked for once in a process."""
    return find_sandbox()


def _candidates(kind: str) -> Iterator[Sandbox]:
    """Our own interpreter first; the system's where another user cannot reach ours."""
    own = str(Path(sys.executable).resolve())
    system = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin")
    drops = kind == "rlimit" and os.name == "posix" and os.geteuid() == 0
    if kind != "rlimit" or drops:
        for python in dict.fromkeys(filter(None, (own, system))):
            yield Sandbox(kind, python, drops=drops)
    if kind == "rlimit":
        yield Sandbox(kind, own)


@functools.cache
def _packages(box: Sandbox) -> tuple[str, ...]:
    """The folders of `PACKAGES` that work in a sandbox: ours, or those of its interpreter."""
    ours = find_spec("numpy")
    said = _said([box.python, "-c", "import numpy; print(numpy.__file__, end='')"])
    for file in (ours.origin if ours else None, said.decode() or None):
        if file is not None:
            home = Path(file).resolve().parents[1]
            paths = tuple(str(home / name) for name in PACKAGES if (home / name).is_dir())
            shown = replace(box, packages=paths)
            where = BOUND_AT if box.kind == "bwrap" else str(home)
            code = f"import sys; sys.path.append({where!r}); import numpy; print(6 * 7)"
            if _says_42(shown.command(["-c", code])):
                return paths
    return ()


def _tool(name: str) -> str:
    """The path of a program of ours; its children have another PATH."""
    return shutil.which(name) or name


def _says_42(command: Sequence[str]) -> bool:
    return _said(command) == b"42\n"


def _said(command: Sequence[str]) -> bytes:
    """Run a command and return its output; empty if it cannot be run."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            cwd="/",
            env=dict(ENVIRONMENT),
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return b""
    return done.stdout


def _as_nobody_else() -> tuple[str, ...]:
    """The command that makes a process a user that nothing else is."""
    user = str(_new_user())
    return (_tool("setpriv"), "--reuid", user, "--regid", user, "--clear-groups")


def _new_user() -> int:
    """A user's number out of `USERS`; nobody's where this namespace does not have those."""
    try:
        lines = Path("/proc/self/uid_map").read_text().splitlines()
    except OSError:
        return NOBODY
    for first, _, count in (map(int, line.split()) for line in lines):
        if first <= USERS.start and USERS.stop <= first + count:
            return USERS[secrets.randbelow(len(USERS))]
    return NOBODY


def _tasks_of(user: int) -> Iterator[str]:
    """The threads that a user's processes have now."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == user:
                yield from os.listdir(process / "task")
        except OSError:
            continue
