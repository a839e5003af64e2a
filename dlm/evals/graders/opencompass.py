"""How OpenCompass finds answers, which LLaDA and SDAR report their scores by."""

from __future__ import annotations

import re
from typing import Final

FENCED: Final = re.compile(r"```\w*\n(.*?)```", re.DOTALL)
NUMBER: Final = re.compile(r"-?\d+\.\d+|-?\d+")
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
SIGNS: Final = ("BEGIN", "DONE", "```")
"""What patterns hold as it stands."""
DONE: Final = re.compile(r"'?\s*\[?DONE\]?")


def first_fence(text: str) -> str:
    """`humaneval_postprocess_v2`: the first fence that is closed, else everything."""
    blocks = FENCED.findall(text)
    return str(blocks[0] if blocks else text).lstrip()


def program_between(text: str) -> str:
    """`MBPPEvaluator`: the program between its marks, or in a fence."""
    for pattern in BETWEEN:
        if any(sign in pattern and sign not in text for sign in SIGNS):
            continue  # cannot be found, and looking takes quadratic time
        if match := re.search(pattern, text, re.DOTALL):
            text = match[1]
            break
    text = DONE.split(text.split("```")[0])[0].replace("\\_", "_").strip()
    return text.removeprefix("'").removesuffix("'")


def last_number(text: str) -> str | None:
    """`gsm8k_postprocess`: the last number before another question."""
    found = NUMBER.findall(text.split("Question:")[0])
    return found[-1] if found else None


def same_integer(number: str | None, reference: str) -> bool:
    """`Gsm8kEvaluator`: whether a number is the integer."""
    return number is not None and abs(float(number) - int(reference.replace(",", ""))) < 1e-6
