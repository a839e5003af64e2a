"""Build the wheel and try it outside the tree: `python -m tests.wheel_check`.

Every Python that pyproject.toml promises and that is on this machine gets a clean environment. The
Python that runs this gets all requirements and decodes with the bundled models. For the others pip
may fetch gigabytes of torch, so they import and answer what needs no torch, unless `--full` is
given. Every extra is resolved by pip for each of them. The first lines of the README are followed
in a clone. What is left out is said by name; the exit code is 1 when something is wrong.
"""

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
NEEDS_TORCH = frozenset({"torch", "accelerate"})
FREE_GB = {True: 12, False: 2}  # on disk, for an environment with CUDA's torch and for one without
SECONDS = 1800  # for one command
ALONE = ("--quiet", "--no-deps", "--no-build-isolation")

# Run by the environment's own Python, in a folder of its own: nothing of the tree is imported.
IMPORT_ALL = """
import importlib, json, pkgutil, sys, dlm
assert dlm.__file__.startswith(sys.prefix), dlm.__file__
failed, found = {}, 0
for module in pkgutil.walk_packages(dlm.__path__, "dlm.", onerror=lambda name: None):
    found += 1
    if module.name != "dlm.__main__":
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            failed.setdefault(error.name.partition(".")[0], []).append(module.name)
print(json.dumps([found, failed]))
"""
ANSWER = """
import dlm
answer = dlm.load().generate("Sort these words: wolf, cow, cat.")
assert answer.text == "cat, cow, wolf", answer
assert answer.stats.nfe > 0
"""


class Wrong(Exception):
    """A check that failed; its text says which."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full", action="store_true", help="fetch torch for every Python")
    full = parser.parse_args().full
    with tempfile.TemporaryDirectory(prefix="dlm-wheel-") as name:
        folder = Path(name)
        wheel = build(folder)
        passed = [
            told(f"Python {v}", lambda v=v: check(v, wheel, folder / v, full=full or v == own()))
            for v in promised()
        ]
        passed.append(told("The README's first lines", lambda: first_lines(folder / "readme")))
    return 0 if all(passed) else 1


def told(name: str, check: Callable[[], str]) -> bool:
    """Whether a check passes; its outcome is printed."""
    begun, passed = time.monotonic(), True
    try:
        outcome = check()
    except Wrong as error:
        passed, outcome = False, f"WRONG: {error}"
    print(f"{name}: {outcome} ({time.monotonic() - begun:.0f} s)", flush=True)
    return passed


def own() -> str:
    """The Python that runs this."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def promised() -> list[str]:
    """The versions of Python that pyproject.toml names."""
    found = [
        re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line)
        for line in PROJECT["classifiers"]
    ]
    return [match[1] for match in found if match]


# The files


def build(folder: Path) -> Path:
    """The wheel of the tree; the one made from the source archive must hold the same files."""
    tools = environment(sys.executable, folder / "tools")
    run(tools, "-m", "pip", "install", "--quiet", "-c", CONSTRAINTS, "hatchling")
    run(tools, "-m", "hatchling", "build", "-t", "sdist", "-d", folder / "sdist", cwd=ROOT)
    (sdist,) = (folder / "sdist").iterdir()
    wheels = []
    for number, source in enumerate((ROOT, sdist)):
        place = folder / f"wheel{number}"
        run(tools, "-m", "pip", "wheel", *ALONE, "-w", place, source)
        wheels += place.iterdir()
    ours, theirs = map(contents, wheels)
    if ours != theirs:
        raise Wrong(f"the wheel of the sdist differs in {sorted(ours.items() ^ theirs.items())}")
    kept = subprocess.run(
        ["git", "ls-files", "dlm"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")[:-1]
    missing = [path for path in kept if path not in ours]
    if missing:
        raise Wrong(f"the wheel lacks {missing}")
    size = wheels[0].stat().st_size / 2**20
    print(f"{wheels[0].name}: {len(ours)} files, {size:.1f} MB; {sdist.name} gives the same")
    shutil.rmtree(tools.parents[1])
    return wheels[0]


def contents(wheel: Path) -> dict[str, str]:
    """The files of a wheel -> their hashes."""
    with ZipFile(wheel) as files:
        return {name: hashlib.sha256(files.read(name)).hexdigest() for name in files.namelist()}


def first_lines(folder: Path) -> str:
    """Follow the README's first block word by word, in a clone of what is committed."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python3").symlink_to(getattr(sys, "_base_executable", sys.executable))
    run(Path("git"), "clone", "--quiet", ROOT, folder / "dlm")
    readme = (folder / "dlm" / "README.md").read_text("utf-8")
    lines = re.search(r"^```sh\n(.*?)^```", readme, re.M | re.S)[1]
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    script = f"export PATH={shlex.quote(path)}\nset -e\n{lines}"
    told = run(Path("bash"), "-c", script, cwd=folder / "dlm")
    shutil.rmtree(folder)
    if not told.endswith("cat, cow, wolf\n"):
        raise Wrong(f"they print {told!r}")
    return "they install dlm, and it answers"


# One Python


def check(version: str, wheel: Path, folder: Path, *, full: bool) -> str:
    """Install the wheel for one Python and try it. Raises `Wrong`."""
    base = interpreter(version)
    if base is None:
        return "skipped, it is not on this machine"
    free = shutil.disk_usage(folder.parent).free / 2**30
    if free < FREE_GB[full]:
        return f"skipped, {FREE_GB[full]} GB of disk are needed and {free:.0f} are free"
    python = environment(base, folder)
    try:
        done = [*(with_torch if full else without_torch)(python, wheel)]
        done += [f"{extras(python, wheel)} resolve"]
    finally:
        shutil.rmtree(folder)
    return "passed: " + ", ".join(done)


def with_torch(python: Path, wheel: Path) -> Iterator[str]:
    """Install all requirements, then the extras, and decode."""
    pip(python, wheel)
    yield "installed"
    dlm = python.parent / "dlm"
    work = python.parents[1] / "work"
    work.mkdir()
    every_module(python, work, optional=set(requirements(wheel, extras=True)))
    run(python, "-I", "-c", ANSWER, cwd=work)
    yield "Python"
    for line in (
        "--version",
        "info",
        "info tiny-block --json",
        "generate hello --model tiny-block",
        "generate hello --trace made.jsonl",
        "trace made.jsonl --html made.html",
        "verify tiny",
    ):
        run(dlm, *line.split(), cwd=work)
    yield "the commands"
    users = [extra for extra in PROJECT["optional-dependencies"] if extra != "dev"]
    pip(python, f"{wheel}[{','.join(users)}]")
    every_module(python, work, optional=set())
    run(python, "-m", "pip", "check", cwd=work)
    run(
        dlm,
        *("eval", "bundled", "--tasks", "math", "--limit", "2", "--config", "a: unmask=topk"),
        *("--out", "runs"),
        cwd=work,
    )
    run(python.parent / "dlm-lm-eval", "--help", cwd=work)
    yield f"[{','.join(users)}] installed and used"


def without_torch(python: Path, wheel: Path) -> Iterator[str]:
    """Install what is small, and try what needs no torch."""
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel)
    pip(python, *(f"{name}" for name in requirements(wheel) if name not in NEEDS_TORCH))
    work = python.parents[1] / "work"
    work.mkdir()
    run(python, "-m", "compileall", "-q", "-f", next((python.parents[1] / "lib").glob("*/*/dlm")))
    optional = NEEDS_TORCH | set(requirements(wheel, extras=True))
    yield f"{every_module(python, work, optional=optional)} modules imported"
    dlm = python.parent / "dlm"
    for line in ("--version", "--help", "generate --help", "serve --help", "eval --help"):
        run(dlm, *line.split(), cwd=work)
    run(dlm, "generate", "--steps", "0", "hello", cwd=work, code=2)
    yield "help"
    run(
        Path(sys.executable),
        "-m",
        "mypy",
        "--strict",
        "--python-version",
        version_of(python),
        "dlm",
        cwd=ROOT,
    )
    yield "types; skipped without torch: decoding"


def every_module(python: Path, work: Path, *, optional: set[str]) -> int:
    """How many modules import; those that fail may do so for want of `optional` packages alone."""
    found, failed = json.loads(run(python, "-I", "-c", IMPORT_ALL, cwd=work))
    names = {name.replace("_", "-") for name in failed}
    if not names <= optional:
        raise Wrong(f"modules lack {names - optional}: {failed}")
    return int(found - sum(map(len, failed.values())))


def extras(python: Path, wheel: Path) -> str:
    """The extras; pip resolves all at once, so each: the constraints leave one version of each."""
    names = ",".join(sorted(PROJECT["optional-dependencies"]))
    pip(python, "--dry-run", f"{wheel}[{names}]")
    return f"[{names}]"


def requirements(wheel: Path, *, extras: bool = False) -> list[str]:
    """The names that a wheel requires: always, or for its extras."""
    with ZipFile(wheel) as files:
        (meta,) = (name for name in files.namelist() if name.endswith(".dist-info/METADATA"))
        lines = files.read(meta).decode().split("\n\n")[0].splitlines()
    start = "Requires-Dist: "
    asked = [line.removeprefix(start) for line in lines if line.startswith(start)]
    asked = [line for line in asked if ("extra ==" in line) is extras]
    return [re.match(r"[\w.-]+", line)[0].lower() for line in asked]


# Interpreters


def interpreter(version: str) -> str | None:
    """A Python of this version on this machine, None if there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    places = [sys.executable, shutil.which(f"python{version}")]
    places += sorted(map(str, pyenv.glob(f"{version}*/bin/python{version}")), reverse=True)
    uv = shutil.which("uv")
    if uv:
        told = subprocess.run(
            [uv, "python", "find", "--offline", version],
            capture_output=True,
            text=True,
            check=False,
        )
        places += told.stdout.split()
    return next((place for place in places if place and version_of(place) == version), None)


def version_of(python: str | Path) -> str | None:
    """Which Python this is; None for one that does not start, as shims of pyenv may not."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        told = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return told.stdout.strip() or None


def environment(base: str, folder: Path) -> Path:
    """A clean environment; its Python."""
    run(Path(base), "-m", "venv", folder)
    return folder / "bin" / "python"


def pip(python: Path, *arguments: str | Path) -> None:
    """Install in the versions that the tree is tested with."""
    run(python, "-m", "pip", "install", "--quiet", "-c", CONSTRAINTS, *arguments)


def run(program: Path, *arguments: str | Path, cwd: Path | None = None, code: int = 0) -> str:
    """What a command prints. Raises `Wrong` unless it ends with `code`."""
    command = [str(program), *map(str, arguments)]
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=clean,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Wrong(f"{' '.join(command)} took more than {SECONDS} s") from error
    if done.returncode != code:
        told = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise Wrong(f"{' '.join(command)} ended with {done.returncode}: {told}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
