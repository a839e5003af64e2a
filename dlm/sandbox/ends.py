"""Input of a run's two interpreters: the code of both, and the task of the tests' one."""

from __future__ import annotations

import ast
import builtins
import functools
import importlib.util
import marshal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from dlm.sandbox.syntax import program_tree

INSIDE: Final = Path(__file__).with_name("inside")
MODULES: Final = (
    *("kinds", "objects", "writing", "reading", "link", "operations", "strangers"),
    *("program", "tester"),
)
"""In the order in which they import each other."""
MARSHAL: Final = 4
"""Version of the format, which every interpreter that we run reads."""


class Ends(NamedTuple):
    """Descriptors of one interpreter: for the proof that it has begun and what follows it (1 at the
    program's end), to read from the other one, to write to it.
    """

    proof: int
    read: int
    write: int


class Task(NamedTuple):
    """A program and the tests that judge it.

    nonce: secret that the tests' interpreter repeats with its verdict
    source: code of the program
    tests: code of the tests
    entry: the one name of the program that the tests see; "": every name they do not define
    """

    nonce: str
    source: str
    tests: str
    entry: str = ""


def parcel(task: Task) -> bytes:
    """All that the tests' end reads on its stdin."""
    source, tests = (_encodable(text) for text in (task.source, task.tests))
    borrowed = () if task.entry else borrowed_names(tests)
    given = (task.nonce, source, tests, borrowed, task.entry)
    return b"".join(
        len(data).to_bytes(8, "big") + data for data in (code(), marshal.dumps(given, MARSHAL))
    )


def _encodable(text: str) -> str:
    """The text without lone surrogates."""
    return text.encode(errors="replace").decode()


@functools.cache
def code() -> bytes:
    """The modules of both ends, as source and compiled."""
    modules = []
    for name in MODULES:
        source = (INSIDE / f"{name}.py").read_text(encoding="utf-8")
        compiled = marshal.dumps(compile(source, f"<{name}>", "exec"), MARSHAL)
        modules.append((f"dlm.sandbox.inside.{name}", source, compiled))
    return marshal.dumps((importlib.util.MAGIC_NUMBER, modules), MARSHAL)


@functools.cache
def boot() -> str:
    """The first lines that each interpreter runs."""
    return (INSIDE / "boot.py").read_text(encoding="utf-8")


@functools.lru_cache(maxsize=64)
def borrowed_names(tests: str) -> tuple[str, ...]:
    """Builtins that the tests call and that may be the program's, the likeliest first.

    A program that defines `abs` or `len` must not change what its tests compute. But a function
    that is asked for may be called like a builtin (MBPP's task 126 asks for `sum`): where the tests
    have no other name from the program, the innermost one that they call is the program's.
    """
    try:
        tree = program_tree(tests)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    bound = {node.id for node in names if not isinstance(node.ctx, ast.Load)} | {*_bound(tree)}
    free = {node.id for node in names} - bound
    if any(name not in vars(builtins) and name not in sys.stdlib_module_names for name in free):
        return ()
    depths = {
        node.func.id: len([*ast.walk(node)])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in free
    }
    return tuple(sorted(depths, key=depths.__getitem__))


def _bound(tree: ast.Module) -> Iterator[str]:
    """Names that functions, classes, imports and parameters bind."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.partition(".")[0]
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name


def boot_arguments(
    ends: Ends, packages: str, limits: Mapping[str, int], *, hides: bool = False
) -> list[str]:
    """The arguments of an interpreter that becomes an end; see `inside/boot.py`."""
    told = [f"{name}={value}" for name, value in limits.items()]
    return ["-c", boot(), *map(str, ends), packages, str(int(hides)), *told]
