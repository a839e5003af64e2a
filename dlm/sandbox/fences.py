"""Fences in an answer: the blocks of text that marks of three or more backticks or tildes set off.

An answer may begin inside a fence that the prompt has opened, leave its last one open, or write on
the line of a mark. So marks only show where a block can begin and end; `dlm.sandbox.programs`
decides which of the blocks is the program.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from dlm.sandbox.source import ends_inside, unindented

MARK: Final = re.compile(r"`{3,}|^[ \t]*(?:[-*+>] |\d+[.)] )?[ \t]*~{3,}", re.MULTILINE)
MOST_MARKS: Final = 64
"""Marks that are looked at; text after further ones belongs to the last block."""
INFO: Final = re.compile(r"[ \t]*\{?[ \t]*\.?(?P<language>[\w+#.-]*)[}, \t]*(?P<more>[^\n]*)")
"""Words after a mark that opens a fence: `python`, `{.python}`, `py title="x"`."""
PYTHON: Final = re.compile(r"(?:i?python|py)[\d.]*|", re.IGNORECASE)
"""Names of the language, and none."""
QUOTED: Final = re.compile(r"^[ \t]*>[ \t]?", re.MULTILINE)


class Mark(NamedTuple):
    """A mark: its start, its end and its sign."""

    start: int
    end: int
    sign: str
    length: int
    quoted: bool

    def closes(self, opened: Mark | None) -> bool:
        """True if this mark can end the block that `opened` (None: the prompt) has opened."""
        return opened is None or (self.sign == opened.sign and self.length >= opened.length)


class Block(NamedTuple):
    """A block that may be a program.

    text: unchanged
    fenced: True if a mark has opened it
    python: True if it names Python or no language
    """

    text: str
    fenced: bool
    python: bool

    @property
    def program(self) -> str:
        """The text without blank lines around it and without its own indentation."""
        return unindented(self.text.strip("\n").rstrip())


def blocks_of(answer: str) -> list[Block]:
    """Split an answer into the blocks between its marks, in order.

    A mark inside a string or a comment of a block does not end the block.
    """
    marks = _marks_of(answer)
    found = []
    for opened in (None, *marks):
        for readings in _blocks_at(answer, marks, opened):
            found += readings
            if not any(ends_inside(block.text) for block in readings):
                break
    return found


def _marks_of(answer: str) -> list[Mark]:
    found = []
    for match in MARK.finditer(answer):
        run = match[0].lstrip(" \t-*+>0123456789.)")
        line = answer[answer.rfind("\n", 0, match.start()) + 1 : match.end()]
        quoted = QUOTED.match(line) is not None
        found.append(Mark(match.end() - len(run), match.end(), run[0], len(run), quoted))
    return found[:MOST_MARKS]


def _blocks_at(answer: str, marks: list[Mark], opened: Mark | None) -> Iterator[list[Block]]:
    """The blocks that begin after a mark (None: at the start of the answer).

    One list for each place where they can end, the nearest first; in a list the block from the next
    line on comes before the one that begins on the line of the mark itself.
    """
    start = 0 if opened is None else opened.end
    ends = [mark.start for mark in marks if mark.start >= start and mark.closes(opened)]
    for end in (*ends, len(answer)):
        yield list(_readings(answer[start:end], opened))


def _readings(inside: str, opened: Mark | None) -> Iterator[Block]:
    if opened is None:
        yield Block(inside, fenced=False, python=True)
        return
    inside = QUOTED.sub("", inside) if opened.quoted else inside
    info = INFO.match(inside)
    assert info is not None  # it matches nothing at all too
    python = PYTHON.fullmatch(info["language"]) is not None
    yield Block(inside[info.end() :], fenced=True, python=python)
    if info["more"].strip():
        named = inside[info.start("more") :] if python else inside
        yield Block(named, fenced=True, python=True)
