"""The tests that a prompt shows, and the program that checks them one after the other.

Tests are lines of an interpreter (`>>> f(2)`, and its output below), in docstrings or
anywhere in the prompt, and `assert` statements on lines of their own, as MBPP shows them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from doctest import DocTestParser
from typing import Final, NamedTuple

from dlm.sandbox.fences import blocks_of
from dlm.sandbox.source import parsed
from dlm.sandbox.syntax import expression_tree

QUOTES: Final = re.compile(r"(?:\"{3}|'{3})[ \t]*$", re.MULTILINE)
"""The end of a docstring in a text that does not parse."""
DOCSTRING: Final = re.compile(r"[rRuU]?(\"{3}|'{3}|\"|')(?P<words>.*)\1", re.DOTALL)
ASSERTION: Final = re.compile(r"^[ \t]*(assert\b.*)$", re.MULTILINE)
HEAD: Final = """
import ast as _ast, contextlib as _contextlib, io as _io

def _same(found, printed, wanted):
    shown = printed + ("" if found is None else repr(found))
    if shown.split() == wanted.split():
        return True
    try:
        value = _ast.literal_eval(wanted)
    except (ValueError, SyntaxError):
        return False
    return not printed and type(value) is type(found) and value == found

def _judge(number, call, found, printed, wanted):
    if not _same(found, printed, wanted):
        shown = printed + repr(found)
        raise AssertionError(f"{number}: {call} gives {shown[:200]}, not {wanted[:200]}")

def _fail(number, call, error):
    words = f"{number}: {call} raises {type(error).__name__}: {error}"
    raise AssertionError(words[:400]) from None
"""
"""Begins the tests; a program's names begin otherwise."""
RUN: Final = """
_out, _found = _io.StringIO(), None
try:
    with _contextlib.redirect_stdout(_out):
        {code}
except Exception as _error:
    _fail({number}, {call!r}, _error)
"""
FAILURE: Final = re.compile(r"AssertionError: (\d{1,4}): (.*)", re.DOTALL)


class Example(NamedTuple):
    """One test of a prompt.

    source: a statement or an expression
    wanted: output of the interpreter (empty: it only must not raise)
    """

    source: str
    wanted: str = ""


def examples_of(prompt: str) -> list[Example]:
    """The tests that a prompt shows, in its order: those of docstrings, else of all of its text."""
    fenced = (block.program for block in blocks_of(prompt) if block.fenced)
    sources = [prompt] if parsed(prompt) is not None else fenced
    found = [one for source in sources for text in _docstrings(source) for one in _typed(text)]
    found = found or _typed(QUOTES.sub("\n", prompt))
    lines = (line.rstrip() for line in ASSERTION.findall(prompt))
    return [*found, *(Example(line) for line in lines if _calls(line))]


def _docstrings(source: str) -> Iterator[str]:
    """The docstrings of a program as they are spelled: few authors double their backslashes."""
    tree = parsed(source)
    for node in () if tree is None else ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            told = ast.get_docstring(node) and ast.get_source_segment(source, node.body[0])
            inside = DOCSTRING.fullmatch(told or "")
            yield "" if inside is None else inside["words"]


def _calls(line: str) -> bool:
    """True if a line is code that calls something: prose such as `assert it` may parse, too."""
    tree = parsed(line)
    return tree is not None and any(isinstance(node, ast.Call) for node in ast.walk(tree))


def _typed(text: str) -> list[Example]:
    """The lines of an interpreter in a text, but for those that print a traceback."""
    try:
        found = DocTestParser().get_examples(text)
    except ValueError:  # lines that are indented in no order
        return []
    return [Example(e.source.strip(), e.want.strip()) for e in found if e.exc_msg is None]


def tests_of(examples: Sequence[Example]) -> str:
    """The code of the tests; the one that fails raises an `AssertionError` with its number."""
    parts = [HEAD]
    for number, (source, wanted) in enumerate(examples):
        is_value = bool(wanted) and _is_expression(source)
        code = (f"_found = (\n{source}\n)" if is_value else source).replace("\n", "\n        ")
        parts.append(RUN.format(code=code, number=number, call=source))
        if wanted:
            parts.append(f"_judge({number}, {source!r}, _found, _out.getvalue(), {wanted!r})\n")
    return "".join(parts)


def _is_expression(source: str) -> bool:
    try:
        expression_tree(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def failure(detail: str) -> tuple[int, str] | None:
    """The number of the test that has failed and the reason in words; None if none has told."""
    found = FAILURE.match(detail)
    return None if found is None else (int(found[1]), found[2])
