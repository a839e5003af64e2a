"""Answers to MATH as Minerva judges them (arXiv 2206.14858, appendix D).

The normal form follows lm-evaluation-harness 0.4.13, whose units are whole words and whose commas
are thousands separators only.
"""

from __future__ import annotations

import re
from typing import Final

END: Final = "I hope it is correct."
SAID: Final = re.compile(rf"Final Answer: The final answer is(.*?). {re.escape(END)}")
UNITS: Final = (
    *("square", "ways", "integers", "dollars", "mph", "inches", "ft", "hours", "km", "units"),
    *("sue", "points", "feet", "minutes", "digits", "cents", "degrees", "cm", "gm", "pounds"),
    *("meters", "meals", "edges", "students", "childrentickets", "multiples"),
)
"""Words that are taken out."""
REWRITTEN: Final = (
    *(("an ", ""), ("a ", ""), (".$", "$"), ("\\$", ""), ("\\ ", ""), (" ", "")),
    *(("mbox", "text"), (",\\text{and}", ","), ("\\text{and}", ","), ("\\text{m}", "\\text{}")),
)
"""What is written alike first, in this order."""
MARKS: Final = (
    *("\\ldots", "\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2", "\\text{}^3"),
    *("\\text{\n}", "\\text{}", "\\mathrm{th}", "^\\circ", "^{\\circ}", "\\;", ",\\!", "{,}"),
    *('"', "\\dots"),
)
"""Signs that are taken out."""
COMMAND: Final = re.compile(r"(\\[a-zA-Z]+)")
SHORTHAND: Final = (
    (re.compile(r"(.*?)(\$)(.*?)(\$)(.*)"), r"$\3$"),
    (re.compile(r"(\\text\{)(.*?)(\})"), r"\2"),
    (re.compile(r"(\\textbf\{)(.*?)(\})"), r"\2"),
    (re.compile(r"(\\overline\{)(.*?)(\})"), r"\2"),
    (re.compile(r"(\\boxed\{)(.*)(\})"), r"\2"),
    (re.compile(r"(frac)([^{])(.)"), r"frac{\2}{\3}"),
    (re.compile(r"(sqrt)(\[[^\]]*\])(\w)"), r"\1\2{\3}"),
    (re.compile(r"(sqrt)(?!\[)([^{])"), r"sqrt{\2}"),
)
"""What is left of formulas, fonts and boxes; fractions and roots with their braces."""
THOUSANDS: Final = re.compile(r"-?\d{1,3}(,\d{3})+")


def minerva_said(text: str) -> str | None:
    """What an answer says that its final answer is; None where it says nothing."""
    found = SAID.search(text + END)
    return None if found is None else found[1].strip()


def minerva_form(answer: str) -> str:
    """A final answer written in one way."""
    answer = answer.split("=")[-1]
    for unit in UNITS:
        answer = re.sub(rf"(?<!\\)\b{unit}\b", "", answer)
    for old, new in REWRITTEN:
        answer = answer.replace(old, new)
    answer = _without_glued_units(answer)
    for mark in MARKS:
        answer = answer.replace(mark, "")
    for pattern, new in SHORTHAND:
        answer = pattern.sub(new, answer)
    answer = answer.replace("$", "")
    return answer.replace(",", "") if THOUSANDS.fullmatch(answer) else answer


def _without_glued_units(answer: str) -> str:
    """Units that touch what is before them, but not the letters of a command (`\\left`)."""
    parts = COMMAND.split(answer)  # commands at the odd places
    for at in range(0, len(parts), 2):
        for unit in UNITS:
            parts[at] = parts[at].replace(unit, "")
    return "".join(parts)
