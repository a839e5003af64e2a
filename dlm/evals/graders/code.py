"""Code in an answer: which part of the text is the program, found by rules with a version.

Published MBPP scores of Dream-Base are 12.4 (arXiv 2509.26432) and 55.6 (arXiv 2505.22618), so
every verdict names the rule that applied.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from dlm.sandbox.programs import Program
from dlm.sandbox.source import parsed

STOPS: Final = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""Where a completion of a bare prompt ends (lm-evaluation-harness, task `humaneval`)."""
LINES_READ: Final = 100


def sanitized(text: str, entry: str | None, prompt: str) -> Program:
    """`dream-v1`: how Dream's evaluation and Fast-dLLM's clean a HumanEval answer.

    The prompt with the text of the first `python` fence; of it the longest run of lines that
    parses; of that the imports, and the definitions that the function needs (without `entry` all).
    """
    fenced = text.split("```python\n", 1)[-1].split("```")[0]
    whole = f"{prompt}\n{fenced}".replace("\t", "    ").replace("\r\n", "\n").replace("\r", "\n")
    tree = ast.parse(_longest_parsing(whole.strip().splitlines()[:LINES_READ]))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    known = {name: node for node in tree.body if (name := _defined(node)) is not None}
    needed, waiting = set[str](), [entry] if entry else list(known)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += _mentioned(known[name]) if name in known else ()
    kept = [*imports, *(node for name, node in known.items() if name in needed)]
    try:
        return Program("\n".join(map(ast.unparse, kept)) + "\n", "sanitized")
    except RecursionError:  # an expression that is nested too deep to be written down
        return Program("", "sanitized")


def _longest_parsing(lines: Sequence[str]) -> str:
    """The run with the most lines that are not blank, the first of several."""
    full = [0, *accumulate(bool(line.strip()) for line in lines)]
    runs = ((i, j) for i in range(len(lines)) for j in range(i + 1, len(lines) + 1))
    for i, j in sorted(runs, key=lambda run: (full[run[0]] - full[run[1]], run)):
        if full[j] > full[i] and parsed(run := "\n".join(lines[i:j])) is not None:
            return run
    return ""


def _defined(node: ast.stmt) -> str | None:
    """The name that a statement defines: of a class, a variable, a function that returns."""
    match node:
        case ast.ClassDef(name=name):
            return name
        case ast.FunctionDef(name=name):
            returns = any(isinstance(inner, ast.Return) for inner in ast.walk(node))
            return name if returns else None
        case ast.Assign(targets=[ast.Name(id=name), *_]):
            return name
    return None


def _mentioned(node: ast.stmt) -> set[str]:
    """Names in a definition, and the last names of attributes: `a.b` mentions `b` alone."""
    found, waiting = set[str](), [*ast.iter_child_nodes(node)]
    while waiting:
        match waiting.pop():
            case ast.Name(id=name) | ast.Attribute(attr=name):
                found.add(name)
            case inner:
                waiting += ast.iter_child_nodes(inner)
    return found


def cut_at(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop string."""
    places = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    return text[: min(places)] if places else text
