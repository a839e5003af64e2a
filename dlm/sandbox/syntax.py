"""Syntax trees of Python texts, also where several threads ask for them at once."""

from __future__ import annotations

import ast
from contextlib import suppress
from typing import Final

TRIES: Final = 8
"""Times that a text is parsed before its `SystemError` is believed."""


def program_tree(source: str) -> ast.Module:
    """The syntax tree of a program. Raises as `ast.parse` does.

    CPython 3.11 counts the depth of trees for all threads together, and raises `SystemError` where
    two are built at once (gh-106905); the next try counts anew.
    """
    for _ in range(TRIES - 1):
        with suppress(SystemError):
            return ast.parse(source)
    return ast.parse(source)


def expression_tree(source: str) -> ast.Expression:
    """The syntax tree of an expression, likewise."""
    for _ in range(TRIES - 1):
        with suppress(SystemError):
            return ast.parse(source, mode="eval")
    return ast.parse(source, mode="eval")
