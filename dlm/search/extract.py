r"""Extractors: the short answer that a text gives, so that texts which differ in words can agree.

`extract` finds one by name. Each takes a text and gives a string, or None where the text has no
such answer; two texts give the same answer if and only if the strings are equal.
"""

from __future__ import annotations

import ast
import re
from collections import deque
from collections.abc import Callable, Mapping
from textwrap import dedent
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from dlm.errors import InvalidRequest, blaming, shown, unknown_name
from dlm.sandbox.syntax import program_tree

Extractor: TypeAlias = Callable[[str], str | None]
"""Takes a text, gives its answer, None where it has none."""

NUMBER: Final = re.compile(
    r"""
    (?<!\w) (?<!\d\.)
    (?: (?<![)\]}]) (?P<sign> [-+\u2212] ) )? \$?  # a sign that joins no two numbers
    (?P<digits> \d{1,3} (?: ,\d{3} )+ (?!\d) | \d+ | (?=\.\d) )
    (?P<rest> \.\d+ )?
    """,
    re.VERBOSE | re.ASCII,
)
"""A decimal number, with commas between thousands or without."""
BRACE: Final = re.compile(r"(\\(?:boxed|fbox)\s*)?\{|\}")
GIVEN: Final = re.compile(r"####[ \t]*(\S[^\n]*)")
WRAPPED: Final = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")
FENCED: Final = re.compile(r"```[^\n]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)
CHOICES: Final = (
    re.compile(r"(?i:answer|choice|option)\W{0,6}(?:(?i:is|be)\W{1,6})?([A-J])(?![\w'])"),
    re.compile(r"\(([A-J])\)"),
    re.compile(r"^[^\w\n]*([A-J])(?:[.):*]|[ \t]*$)", re.MULTILINE),
)
"""Ways in which a text names a choice, the clearest first."""


def extract(rule: Any) -> Extractor:
    """The extractor that a rule means: a name, or a function of a text, which is taken as it is.

    The result of a function becomes a string, unless it is None; its errors name it. Raises
    `InvalidRequest`.
    """
    if callable(rule):
        return _own(rule)
    if not isinstance(rule, str):
        rule = shown(rule)
        raise InvalidRequest("extract", f"must be a name or a function of a text, got {rule}")
    if rule not in EXTRACTORS:
        raise unknown_name("extract", rule, EXTRACTORS)
    return EXTRACTORS[rule]


def answer(text: str) -> str | None:
    """`auto`: the last box, else the end of a line after `####`, else the last number, else the
    last line.
    """
    for rule in (boxed, _after_hashes, number, line):
        if (found := rule(text)) is not None:
            return found
    return None


def number(text: str) -> str | None:
    """`number`: the last decimal number, without `+`, thousands separators and idle zeros."""
    found = deque(NUMBER.finditer(text), maxlen=1)
    return _plain_number(found[0]) if found else None


def boxed(text: str) -> str | None:
    r"""`boxed`: the content of the last `\boxed{...}` that is closed, in a plain form."""
    opened: list[tuple[bool, int]] = []
    start, content = -1, None
    for brace in BRACE.finditer(text):
        if brace[0] != "}":
            opened.append((brace[1] is not None, brace.end()))
        elif opened:
            is_box, begin = opened.pop()
            if is_box and begin > start:
                start, content = begin, text[begin : brace.start()]
    return None if content is None else _plain(content)


def choice(text: str) -> str | None:
    """`choice`: the letter A to J of a choice: boxed, else said to be the answer, else in brackets,
    else at the beginning of a line; the last one of its kind.
    """
    found = boxed(text)
    if found is not None and re.fullmatch(r"\(?[A-J]\)?\.?", found):
        return found.strip("().")
    for way in CHOICES:
        if letters := way.findall(text):
            return str(letters[-1])
    return None


def line(text: str) -> str | None:
    """`line`: the last line that is not blank, its spaces made single."""
    lines = [words for one in text.splitlines() if (words := " ".join(one.split()))]
    return lines[-1] if lines else None


def whole(text: str) -> str | None:
    """`text`: all of it, its white space made single spaces; None if there is nothing else."""
    return " ".join(text.split()) or None


def code(text: str) -> str | None:
    """`code`: the Python of the last fenced block, or of the whole text, as its syntax tree has it.

    Comments, docstrings and layout make no difference. The text may be the body of a function,
    whose first line may lack its indentation. None where it does not parse.
    """
    fenced = FENCED.findall(text)
    source = (fenced[-1] if fenced else text).rstrip()
    for form, is_body in ((dedent(source), False), (f"def f():\n    {source.lstrip()}", True)):
        try:
            tree = program_tree(form)
            body = tree.body[0].body if is_body else tree.body  # type: ignore[attr-defined]
            return ast.unparse(_without_docstrings(ast.Module(body, []))) or None
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return None


EXTRACTORS: Final[Mapping[str, Extractor]] = MappingProxyType(
    {
        "auto": answer,
        "number": number,
        "boxed": boxed,
        "choice": choice,
        "line": line,
        "code": code,
        "text": whole,
    }
)
"""The extractors by name."""


def _own(function: Callable[[str], Any]) -> Extractor:
    """A function of a user as an extractor."""

    def own(text: str) -> str | None:
        with blaming("extract", function):
            found = function(text)
        return None if found is None else str(found)

    return own


def _after_hashes(text: str) -> str | None:
    """The end of the last line with `####`, as GSM8K writes answers."""
    found = GIVEN.findall(text)
    return _plain(found[-1]) if found else None


def _plain(found: str) -> str | None:
    """An answer without what makes no difference to it; None if nothing is left."""
    found = WRAPPED.sub(r"\1", found).replace("\\!", "").replace("\\,", "").strip(" \t\n$.")
    is_number = NUMBER.fullmatch(found)
    return _plain_number(is_number) if is_number else " ".join(found.split()) or None


def _plain_number(found: re.Match[str]) -> str:
    """A number written in one way."""
    digits = found["digits"].replace(",", "").lstrip("0") or "0"
    rest = (found["rest"] or "").rstrip("0").rstrip(".")
    is_negative = found["sign"] in ("-", "\u2212") and digits + rest != "0"
    return f"{'-' * is_negative}{digits}{rest}"


def _without_docstrings(tree: ast.Module) -> ast.Module:
    """A tree whose definitions do not begin with a string."""
    holders = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for one in ast.walk(tree):
        if isinstance(one, holders) and len(one.body) > 1:
            first = one.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                one.body = one.body[1:] if isinstance(first.value.value, str) else one.body
    return tree
