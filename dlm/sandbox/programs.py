"""Programs in answers: which part of a text is code, found by a rule with a version."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from dlm.sandbox.fences import Block, blocks_of
from dlm.sandbox.source import (
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


def _parsing(text: str, rule: str) -> Program:
    """The longest run of whole lines from the start that parses; everything where none does."""
    whole = text.strip("\n")
    part = longest_program(whole)
    if not part:
        return Program(text, rule)
    return Program(part.rstrip("\n") + "\n", rule if part == whole else f"{rule}, cut")
