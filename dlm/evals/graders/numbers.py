"""Answers of the GSM8K kind: one number, found strictly or leniently.

`strict` and `flexible` are the two filters of lm-evaluation-harness' task `gsm8k`, and numbers are
compared as it does: as strings, after commas, dollar signs and a final full stop are taken out.
"""

from __future__ import annotations

import re
from typing import Final

from dlm.evals.graders.maths import TAGGED

STRICT: Final = re.compile(r"#### (-?[0-9.,]+)")
FLEXIBLE: Final = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
SAID: Final = re.compile(r"The answer is (-?[0-9.,]+).")
IGNORED: Final = (
    *(re.compile(","), re.compile(r"\$"), re.compile(r".*#### ", re.DOTALL), re.compile(r"\.$")),
)
"""What is taken out of a number before it is compared, one after the other."""
NOUGHTS: Final = re.compile(r"(?<=\d)\.0+(?!\d)")
"""Noughts after a point, which dInfer takes out besides."""
BOXED: Final = re.compile(r"\\boxed{(.*?)}")
DECIMAL: Final = re.compile(r"-?\d+\.?\d*")


def strict_number(text: str) -> str | None:
    """`gsm8k-strict-v1`: the first number after `####`."""
    found = STRICT.search(text)
    return None if found is None else found[1]


def said_number(text: str) -> str | None:
    """`gsm8k-cot-strict-v1`: the first number in `The answer is N.`"""
    found = SAID.search(text)
    return None if found is None else found[1]


def flexible_number(text: str) -> str | None:
    """`gsm8k-flexible-v1`: the last number anywhere."""
    found = FLEXIBLE.findall(text)
    return found[-1] if found else None


def same_number(answer: str | None, reference: str, *, noughts: bool = True) -> bool:
    """True if two numbers are equal strings after signs without meaning are removed.

    `noughts=False` also removes zeros after a decimal point.
    """
    if answer is None:
        return False
    one, other = _bare(answer), _bare(reference)
    return one == other if noughts else NOUGHTS.sub("", one) == NOUGHTS.sub("", other)


def _bare(number: str) -> str:
    for pattern in IGNORED:
        number = pattern.sub("", number)
    return number


def boxed_number(text: str) -> float | None:
    """`d1-gsm8k-v1` (arXiv 2504.12216): the number of the first box that holds one, else the last
    number between the answer tags.
    """
    for box in BOXED.findall(text):
        inside = box.strip()
        if not inside.strip("."):
            continue
        if (found := _first_float([inside, *DECIMAL.findall(inside)[:1]])) is not None:
            return found
    tagged = TAGGED.search(text)
    inside = "" if tagged is None else tagged[1].strip()
    return _first_float([inside, *DECIMAL.findall(inside)[-1:]])


def _first_float(texts: list[str]) -> float | None:
    """The first text that is a number."""
    for text in texts:
        try:
            return float(text)
        except ValueError:
            continue
    return None
