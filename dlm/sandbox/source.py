"""Python in a text that is not Python throughout: lines that parse, names that are defined."""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final

from dlm.sandbox.syntax import program_tree

BEGINS: Final = re.compile(
    r"[ \t]*(?:import |from |def |class |async def |@|[^\W\d]\w*[ \t]*(?::[^=\n]*)?=(?!=))"
)
"""A line that code in prose can begin with."""
DEFINES: Final = re.compile(r"import |from |def |class |async def |@")
PROMPTED: Final = re.compile(r"^[ \t]*(?:>>>|\.\.\.)(?: (.*)|[ \t]*)$", re.MULTILINE)
"""A line that was typed at the interpreter."""
MOST_TRIES: Final = 30
"""Times that a text is cut before it counts as no code at all."""
MOST_RUNS: Final = 60
"""Places in prose where code is looked for."""
MOST_LINES: Final = 400
"""Lines of one run of code in prose."""
UNFINISHED: Final = "unterminated"
"""Beginnings of Python's messages about a string that is never closed."""

AT_TOP: Final = 2
INSIDE: Final = 1


def parsed(source: str) -> ast.Module | None:
    """The syntax tree of a program, None if it is none."""
    return _tree(source)[0]


def ends_inside(text: str) -> bool:
    """True if a text ends in a comment line, or its first fault is a string that more text could
    close.
    """
    if "#" in text.rpartition("\n")[2]:
        return True
    error = _tree(unindented(text.strip("\n").rstrip()))[1]
    return isinstance(error, SyntaxError) and str(error.msg).startswith(UNFINISHED)


def _tree(source: str) -> tuple[ast.Module | None, Exception | None]:
    try:
        return program_tree(source), None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return None, error


def longest_program(text: str) -> str:
    """The longest run of whole lines from the start that parses; empty if none does."""
    lines = text.split("\n")
    end = len(lines)
    for _ in range(MOST_TRIES):
        part = "\n".join(lines[:end])
        if not part.strip():
            return ""
        tree, error = _tree(part)
        if tree is not None:
            return part
        line = error.lineno if isinstance(error, SyntaxError) else None
        if "\0" in part:
            line = part[: part.index("\0")].count("\n")
        end = min(end - 1, line or end)  # a shorter run that keeps this line has its fault too
    return ""


def unindented(text: str) -> str:
    """A text without the indentation of its first line; a line with less loses all it has."""
    lines = text.split("\n")
    margin = _margin(next((line for line in lines if line.strip()), ""))
    return "\n".join(line[min(margin, _margin(line)) :] for line in lines)


def _margin(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))


def level(source: str, entry: str) -> int:
    """Level at which a program defines a name.

    `AT_TOP` of the module, only `INSIDE` of a class or a function, or 0 if nowhere.
    """
    tree, name = parsed(source), _normal(entry)
    if tree is None:
        return 0
    if any(name in _names(node) for node in _at_top(tree)):
        return AT_TOP
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    inside = any(isinstance(node, functions) and node.name == name for node in ast.walk(tree))
    return INSIDE if inside else 0


def _normal(name: str) -> str:
    """A name as Python writes names."""
    return unicodedata.normalize("NFKC", name)


def _at_top(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements of a module, and those in its branches and loops."""
    waiting: list[ast.AST] = list(reversed(tree.body))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.stmt):
            yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = (ast.stmt, ast.ExceptHandler, ast.match_case)
            waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, inner)]


def _names(node: ast.stmt) -> set[str]:
    """The names that a statement defines."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            inner = (each for target in targets for each in ast.walk(target))
            names = (each for each in inner if isinstance(each, ast.Name))
            return {each.id for each in names if isinstance(each.ctx, ast.Store)}
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
            return {name}
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return {each.asname or each.name for each in names}
    return set()


def begins_like_code(source: str) -> bool:
    """True if a program begins with an import or a definition."""
    return DEFINES.match(source) is not None


def code_in_prose(text: str, entry: str, depth: int) -> str:
    """The code of a text that is not fenced, up to the first run of it that defines `entry` at
    that level or above.

    A run begins with a line that code begins with, takes the lines that parse with it, and ends
    before a line that is indented less. Empty where no run defines it.
    """
    runs: list[str] = []
    lines, at = text.split("\n"), 0
    said = _normal(entry) in _normal(text)
    for _ in range(MOST_RUNS if said else 0):
        at = next((i for i in range(at, len(lines)) if BEGINS.match(lines[i])), len(lines))
        run = longest_program(_indented_run(lines[at : at + MOST_LINES]))
        at += run.count("\n") + 1
        if run:
            runs.append(without_remarks(run))
            if level(runs[-1], entry) >= depth:
                return "\n".join(runs)
    return ""


def _indented_run(lines: Sequence[str]) -> str:
    """The first line and those after it that are indented as much, without that indentation."""
    if not lines:
        return ""
    margin = _margin(lines[0])
    short = (at for at, line in enumerate(lines) if line.strip() and _margin(line) < margin)
    return unindented("\n".join(lines[: next(short, len(lines))]))


def without_remarks(source: str) -> str:
    """A program without statements that do nothing: prose such as `Done`, `Note: see` or `return
    it` parses as a name, an annotation or a statement out of place, and would be an error.
    """
    tree = parsed(source)
    lines = source.split("\n")
    for node in () if tree is None else tree.body:
        if _does_nothing(node) and node.end_lineno is not None:
            whole = "\n".join(lines[node.lineno - 1 : node.end_lineno]).strip()
            if whole == ast.get_source_segment(source, node):
                lines[node.lineno - 1 : node.end_lineno] = [""] * (
                    node.end_lineno - node.lineno + 1
                )
    return "\n".join(lines).strip("\n")


def _does_nothing(node: ast.stmt) -> bool:
    match node:
        case ast.AnnAssign(value=None) | ast.Return() | ast.Break() | ast.Continue():
            return True
        case ast.Expr(value=value):
            acting = (ast.Call, ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)
            return not isinstance(value, acting)
    return False


def typed_in(text: str) -> str:
    """Join the lines that follow the interpreter's prompts in a text."""
    return "\n".join(match[1] or "" for match in PROMPTED.finditer(text))
