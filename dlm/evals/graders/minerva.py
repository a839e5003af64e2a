"""Answers to MATH as Minerva judges them (arXiv 2206.14858, appendix D).

Two versions of the normal form are in use, by the numbers of lm-evaluation-harness' task
`minerva_math`: `2.0` is the one of the paper, in harness 0.4.8 and in the fork of Dream; `3.1`, in
0.4.13, keeps commands such as `\\left` whole, roots with an index, and the commas of tuples.
"""

from __future__ import annotations

import re
from typing import Final, Literal

Version = Literal["2.0", "3.1"]

END: Final = "I hope it is correct."
SAID: Final = re.compile(rf"Final Answer: The final answer is(.*?). {re.escape(END)}")
NOTHING_SAID: Final = "[invalidanswer]"
"""In place of the answer of a text without one; it has a normal form too."""
REWRITTEN: Final = (
    *(("an ", ""), ("a ", ""), (".$", "$"), ("\\$", ""), ("\\ ", ""), (" ", "")),
    *(("mbox", "text"), (",\\text{and}", ","), ("\\text{and}", ","), ("\\text{m}", "\\text{}")),
)
"""What is written alike first, in this order."""
TAKEN_OUT: Final = (
    *("square", "ways", "integers", "dollars", "mph", "inches", "ft", "hours", "km", "units"),
    *("\\ldots", "sue", "points", "feet", "minutes", "digits", "cents", "degrees", "cm", "gm"),
    *("pounds", "meters", "meals", "edges", "students", "childrentickets", "multiples"),
    *("\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2", "\\text{}^3", "\\text{\n}"),
    *("\\text{}", "\\mathrm{th}", "^\\circ", "^{\\circ}", "\\;", ",\\!", "{,}", '"', "\\dots"),
)
"""Words and signs that are taken out, in this order."""
COMMAND: Final = re.compile(r"(\\[a-zA-Z]+)")
FONTS: Final = (
    (re.compile(r"(\\text\{)(.*?)(\})"), r"\2"),
    (re.compile(r"(\\textbf\{)(.*?)(\})"), r"\2"),
    (re.compile(r"(\\overline\{)(.*?)(\})"), r"\2"),
    (re.compile(r"(\\boxed\{)(.*)(\})"), r"\2"),
)
"""What is left of fonts and boxes."""
FRACTION: Final = (re.compile(r"(frac)([^{])(.)"), r"frac{\2}{\3}")
ROOT: Final = (re.compile(r"(sqrt)([^{])"), r"sqrt{\2}")
FORMULA: Final = (re.compile(r"(.*?)(\$)(.*?)(\$)(.*)"), r"$\3$")
INDEXED_ROOTS: Final = (
    (re.compile(r"(sqrt)(\[[^\]]*\])(\w)"), r"\1\2{\3}"),
    (re.compile(r"(sqrt)(?!\[)([^{])"), r"sqrt{\2}"),
)
THOUSANDS: Final = re.compile(r"-?\d{1,3}(,\d{3})+")


def minerva_said(text: str) -> str | None:
    """Extract the text after "Final Answer: The final answer is"; None if there is none."""
    found = SAID.search(text + END)
    return None if found is None else found[1].strip()


def minerva_form(answer: str, version: Version = "3.1") -> str:
    """A final answer written in one way."""
    answer = answer.split("=")[-1]
    words = [each for each in TAKEN_OUT if each.isalpha()] if version == "3.1" else []
    for word in words:
        answer = re.sub(rf"(?<!\\)\b{word}\b", "", answer)
    for old, new in REWRITTEN:
        answer = answer.replace(old, new)
    for each in TAKEN_OUT:
        answer = _outside_commands(answer, each) if each in words else answer.replace(each, "")
    roots = INDEXED_ROOTS if version == "3.1" else (ROOT,)
    for pattern, new in (FORMULA, *FONTS, FRACTION, *roots):
        answer = pattern.sub(new, answer)
    answer = answer.replace("$", "")
    if version == "3.1":
        return answer.replace(",", "") if THOUSANDS.fullmatch(answer) else answer
    bare = answer.replace(",", "")
    return bare if bare.isdigit() else answer


def _outside_commands(answer: str, word: str) -> str:
    """An answer without a word that touches its neighbours, but not the letters of a command."""
    parts = COMMAND.split(answer)  # commands at the odd places
    return "".join(part if at % 2 else part.replace(word, "") for at, part in enumerate(parts))
