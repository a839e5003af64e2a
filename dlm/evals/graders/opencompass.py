"""Programs and numbers as OpenCompass extracts them.

LLaDA and SDAR report their scores by these rules, dInfer those of programs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

FENCED: Final = re.compile(r"```\w*\n(.*?)```", re.DOTALL)
NUMBER: Final = re.compile(r"-?\d+\.\d+|-?\d+")
SPACE: Final = r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
"""White space as Unicode has it, and as OpenCompass' library of patterns does."""
BETWEEN: Final = (
    *(r"\[BEGIN\]\s*'(.*)'\s*\[DONE\]", r"BEGIN\s*'(.*)'\s*\[DONE\]"),
    *(r"\[BEGIN\]\s*'(.*)'\s*DONE", r"BEGIN\s*'(.*)'\s*DONE"),
    *(r"\[BEGIN\]\s*'(.*)\s*\[DONE\]", r"BEGIN\s*'(.*)\s*\[DONE\]"),
    *(r"\[BEGIN\]\s*'(.*)\s*DONE", r"BEGIN\s*'(.*)\s*DONE"),
    *(r"\[BEGIN\]\s*(.*)\s*\[DONE\]", r"BEGIN\s*(.*)\s*\[DONE\]"),
    *(r"\[BEGIN\]\s*(.*)\s*DONE", r"BEGIN\s*(.*)\s*DONE"),
    *(r"```python\s*(.*)\s*```", r"```\s*(.*)\s*```", r"```python\s*(.*)\s*$", r"```\s*(.*)\s*$"),
    *(r"(.*)\s*```.*", r"\[BEGIN\]\s*'(.*)", r"\[BEGIN\](.*)", r"'(.*)'\s*\[DONE\]"),
)
"""Marks around a program; the first pattern that is found counts."""
DINFER: Final = (
    *(r"BEGIN\s*'(.*)'\s*DONE", r"BEGIN\s*'(.*)\s*DONE", r"BEGIN\s*(.*)\s*DONE"),
    *(r"```python\s*(.*)\s*```", r"```\s*(.*)\s*```", r"```python\s*(.*)\s*$", r"```\s*(.*)\s*$"),
    *(r"(.*)\s*```.*", r"\[BEGIN\]\s*'(.*)", r"\[BEGIN\](.*)"),
)
"""Those of dInfer that can be found; its other ones look for text after the end."""
SIGNS: Final = ("BEGIN", "DONE", "```")
"""The text of patterns, unchanged."""
DONE: Final = re.compile(rf"'?{SPACE}*\[?DONE\]?")
CLOSED: Final = re.compile(r"```(?:python)?\n(.*?)\n```", re.DOTALL)
DINFER_DONE: Final = re.compile(r"'?\s*\$\$?DONE\$\$?")


def first_fence(text: str) -> str:
    """`humaneval_postprocess_v2`: the first fence that is closed, else everything."""
    blocks = FENCED.findall(text)
    return str(blocks[0] if blocks else text).lstrip()


def program_between(text: str, *, quotes: bool = True) -> str:
    """`MBPPEvaluator`: the program between its marks, or in a fence; without the `quotes` at its
    ends as LLaDA's copy of OpenCompass has it, with them as SDAR's does.
    """
    text = _between(text, tuple(pattern.replace(r"\s", SPACE) for pattern in BETWEEN))
    text = _before(DONE, text.split("```")[0]).replace("\\_", "_").strip()
    return text.removeprefix("'").removesuffix("'") if quotes else text


def dinfer_program(text: str) -> str:
    """dInfer's `mbpp_sanitized`: the first closed fence, else the text; of it the part between the
    marks that are found.
    """
    blocks = CLOSED.findall(text)
    text = _between((blocks[0] if blocks else text).strip(), DINFER)
    return _before(DINFER_DONE, text.split("```")[0]).replace("\\_", "_").strip()


def _between(text: str, patterns: Sequence[str]) -> str:
    for pattern in patterns:
        if any(sign in pattern and sign not in text for sign in SIGNS):
            continue  # cannot be found, and looking takes quadratic time
        if match := re.search(pattern, text, re.DOTALL):
            return match[1]
    return text


def _before(done: re.Pattern[str], text: str) -> str:
    """Cut a text at the first end mark; a vain search takes quadratic time, so it is avoided."""
    return done.split(text)[0] if "DONE" in text else text


def last_number(text: str) -> str | None:
    """`gsm8k_postprocess`: the last number before another question."""
    found = NUMBER.findall(text.split("Question:")[0])
    return found[-1] if found else None


def same_integer(number: str | None, reference: str) -> bool:
    """`Gsm8kEvaluator`: whether a number is the integer."""
    return number is not None and abs(float(number) - int(reference.replace(",", ""))) < 1e-6
