"""Code in an answer: which part of the text is the program, found by rules with a version.

Published MBPP scores of Dream-Base are 12.4 (arXiv 2509.26432) and 55.6 (arXiv 2505.22618), so
every verdict names the rule that applied.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from dlm.evals.graders.fences import Block, blocks_of
from dlm.evals.graders.source import (
    AT_TOP,
    INSIDE,
    begins_like_code,
    code_in_prose,
    level,
    longest_program,
    parsed,
    typed_in,
    without_remarks,
)

STOPS: Final = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""Where a completion of a bare prompt ends (lm-evaluation-harness, task `humaneval`)."""
LINES_READ: Final = 100
MARKED: Final = re.compile("^\ufeff", re.MULTILINE)
"""A byte order mark, which no program may hold."""


class Program(NamedTuple):
    """A program, and the rule that found it.

    The rules:

    - `fence`: a fence that defines the wanted name
    - `first fence`: the first one, if no fence does
    - `bare`: code before, between or without fences
    - `prompts`: input at the prompts of an interpreter
    - `whole`: the unchanged text

    `cut` after a rule: lines that do not parse were left out.
    """

    source: str
    rule: str


def extract(text: str, entry: str | None = None) -> Program:
    """`code-v2`: the program of an answer. `entry`: the function that is asked for.

    The first place that defines it at the top of a module counts, among these in turn: fences that
    parse (of Python or of no language, then of others), text around fences that parses, parts of
    fences, parts of other text, what was typed at an interpreter. Where there is none, the same
    with a definition inside a class or a function; then code before the first mark, the first
    fence, the text. A mark inside a string or a comment of the program ends no fence.
    """
    text = MARKED.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    blocks = blocks_of(text)
    if entry:
        for depth in (AT_TOP, INSIDE):
            for program in _candidates(text, blocks, entry, depth):
                if level(program.source, entry) >= depth:
                    return program
    fenced = [block for block in blocks if block.fenced and block.text.strip()]
    if not fenced:
        return _parsing(text, "whole")
    before = blocks[0].program
    if begins_like_code(before) and parsed(before) is not None:
        return Program(f"{before}\n", "bare")
    if not blocks[0].fenced and _is_body(blocks[0].text):
        return Program(f"{blocks[0].text.rstrip()}\n", "bare")
    chosen = next((block for block in fenced if block.python), fenced[0])
    return _parsing(chosen.program, "first fence")


def _is_body(text: str) -> bool:
    """True if a text is the body of a function whose first line is in the prompt."""
    return text[:1] in (" ", "\t") and parsed(f"def body():\n{text.rstrip()}\n") is not None


def _candidates(text: str, blocks: Sequence[Block], entry: str, depth: int) -> Iterator[Program]:
    """Yield candidates for the program, the likeliest first."""
    for python in (True, False):
        for block in blocks:
            if block.fenced and block.python == python and parsed(block.program) is not None:
                yield Program(f"{block.program}\n", "fence")
    around = [block for block in blocks if not block.fenced]
    for block in around:
        if parsed(block.program) is not None:
            rule = "bare" if begins_like_code(block.program) else "whole"
            yield Program(f"{without_remarks(block.program)}\n", rule)
    for block in (*(block for block in blocks if block.fenced), *around):
        rule = "fence, cut" if block.fenced else "bare, cut"
        yield Program(f"{without_remarks(longest_program(block.program))}\n", rule)
        yield Program(f"{code_in_prose(block.text, entry, depth)}\n", rule)
    yield Program(f"{code_in_prose(typed_in(text), entry, depth)}\n", "prompts")


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


def _parsing(text: str, rule: str) -> Program:
    """The longest run of whole lines from the start that parses; everything where none does."""
    whole = text.strip("\n")
    part = longest_program(whole)
    if not part:
        return Program(text, rule)
    return Program(part.rstrip("\n") + "\n", rule if part == whole else f"{rule}, cut")
