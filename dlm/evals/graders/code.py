"""Code in an answer: which part of the text is the program, found by rules with a version.

Published MBPP scores of Dream-Base are 12.4 (arXiv 2509.26432) and 55.6 (arXiv 2505.22618), so
every verdict says which rule applied.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, NamedTuple

STOPS: Final = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""Where a completion of a bare prompt ends (lm-evaluation-harness, task `humaneval`)."""
FENCE: Final = re.compile(r"```[ \t]*[\w+-]*[ \t]*\n(.*?)(?:\n?```|\Z)", re.DOTALL)
LINES_READ: Final = 100
TOP_LEVEL: Final = re.compile(r"^(?:import |from |def |class |async def |@)", re.MULTILINE)


class Program(NamedTuple):
    """A program, and the rule that found it: `fence`, `first fence`, `bare` (top-level code in
    prose), `whole` (the text as it stands); `cut`: lines at the end that do not parse were left
    out.
    """

    source: str
    rule: str


def extract(text: str, entry: str | None = None) -> Program:
    """`code-v1`: the program of an answer. `entry`: the function that is asked for."""
    blocks = [match[1] for match in FENCE.finditer(text)]
    wanted = [block for block in blocks if entry and defines(block, entry)]
    if wanted:
        return _parsing(wanted[0], "fence")
    if blocks:
        return _parsing(blocks[0], "first fence")
    start = TOP_LEVEL.search(text) if entry and defines(text, entry) else None
    return _parsing(text[start.start() :], "bare") if start else _parsing(text, "whole")


def sanitized(text: str, entry: str, prompt: str) -> Program:
    """`dream-v1`: how Dream's evaluation and Fast-dLLM's clean a HumanEval answer.

    The prompt with what stands in the first `python` fence; of it the longest run of lines that
    parses; of that the imports, and the definitions that the function needs.
    """
    fenced = text.split("```python\n", 1)[-1].split("```")[0]
    whole = f"{prompt}\n{fenced}".replace("\t", "    ").replace("\r\n", "\n").replace("\r", "\n")
    tree = ast.parse(_longest_parsing(whole.strip().splitlines()[:LINES_READ]))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    known = {name: node for node in tree.body if (name := _defined(node)) is not None}
    needed, waiting = set[str](), [entry]
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
        if full[j] > full[i] and _parses(run := "\n".join(lines[i:j])):
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


def defines(source: str, entry: str) -> bool:
    """Whether a function of this name is defined at the start of some line."""
    return re.search(rf"^\s*(?:async )?def {re.escape(entry)}\b", source, re.MULTILINE) is not None


def cut_at(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop string."""
    places = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    return text[: min(places)] if places else text


def _parsing(text: str, rule: str) -> Program:
    """The longest run of whole lines from the start that parses; everything where none does."""
    lines = text.strip("\n").split("\n")
    for end in range(len(lines), 0, -1):
        part = "\n".join(lines[:end])
        if part.strip() and _parses(part):
            return Program(part.rstrip("\n") + "\n", rule if end == len(lines) else f"{rule}, cut")
    return Program(text, rule)


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
