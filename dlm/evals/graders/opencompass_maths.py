"""Answers to MATH as OpenCompass extracts and compares them; SDAR uses it for GSM8K too.

`math_postprocess_v2` finds the answer, `MATHEvaluator` of version `v2` compares it in two normal
forms: its own, and one after Minerva (arXiv 2206.14858).
"""

from __future__ import annotations

import re
from typing import Final

from dlm.evals.graders.maths import braced_fractions, last_braced_box, quotient, without_name
from dlm.evals.graders.minerva import FONTS, FRACTION, REWRITTEN, ROOT, TAKEN_OUT

SAYS: Final = re.compile("final answer|answer is")
DOUBLE: Final = re.compile(r"\{(.*)\}$")
BRACKETED: Final = (re.compile(r"(\\text\{)\((.*?)\)(\})"), r"\2")
LAST_OF: Final = tuple(
    map(re.compile, (r"finalansweris(.*)", r"answer?is:?(.*)", r"oxed\{(.*?)\}", r"\$(.*?)\$"))
)
"""Of what one of these finds the last is the answer, one after the other."""

FIRST: Final = (
    *(("\\!", ""), ("\\ ", ""), ("\\\\", "\\"), ("\\\\", "\\"), ("tfrac", "frac")),
    *(("dfrac", "frac"), ("\\left", ""), ("\\right", "")),
)
THEN: Final = (
    *(("^{\\circ}", ""), ("^\\circ", ""), ("\\$", ""), ("$", ""), ("\\text", ""), ("x\\in", "")),
    *(("\\%", ""), ("%", ""), (" .", " 0."), ("{.", "{0."), ("\\cdot", "")),
    ("infinity", "\\infty"),
)
"""What is written alike, before and after a unit at the end is left out; in this order."""
UNIT: Final = re.compile(r"\\text{.*?}$")
BOX: Final = re.compile(r"\\mbox{.*?}")
NOUGHTS: Final = ((re.compile(r"(\d+)\.0+([^\d])"), r"\1\2"), (re.compile(r"(\d+)\.0+$"), r"\1"))
BARE_ROOT: Final = re.compile(r"\\sqrt(\w+)")


def found_answer(text: str) -> str:
    """`math_postprocess_v2`: the last box, else the first sentence that states an answer, else the
    first sentence; the sentences in the second form.
    """
    box = last_braced_box(text)
    if box is not None and (double := DOUBLE.match(box)):
        box = double[1]
    if box:
        return box
    sentences = text.split(".")
    said = (each for each in sentences if SAYS.search(each.lower()))
    return second_form(next(said, sentences[0]))


def same_answer(answer: str, reference: str) -> bool:
    """`MATHEvaluator`, `v2`: whether two answers are alike in the first form, in the second form of
    the first, or in the second.
    """
    try:
        one, other = first_form(answer), first_form(reference)
        if one == other or second_form(one) == second_form(other):
            return True
    except ValueError:  # a quotient of anything but integers has no first form
        pass
    return second_form(answer) == second_form(reference) or answer == reference


def first_form(answer: str) -> str:
    """An answer written in one way. Raises `ValueError` for a quotient of anything but integers."""
    answer = answer.strip().replace("\n", "").rstrip(".")
    for old, new in FIRST:
        answer = answer.replace(old, new)
    answer = UNIT.sub("", answer).strip() or answer
    for old, new in THEN:
        answer = answer.replace(old, new)
    if "\\infty" not in answer:
        answer = answer.replace("inf", "\\infty")
    answer = answer.replace("+\\inity", "\\infty").replace("and", "").replace("\\mathbf", "")
    answer = BOX.sub("", answer)
    if "i" not in answer:
        answer = answer.replace("j", "i")
    for pattern, new in NOUGHTS:
        answer = pattern.sub(new, answer)
    if not answer:
        return answer
    answer = without_name("0" + answer if answer[0] == "." else answer)
    answer = BARE_ROOT.sub(r"\\sqrt{\1}", answer).replace(" ", "")
    return quotient(braced_fractions(answer))


def second_form(answer: str) -> str:
    """An answer written in one way, after Minerva's appendix D; of a sentence its last part."""
    for old, new in (*REWRITTEN, ("\\le", "<")):
        answer = answer.replace(old, new)
    for each in (*TAKEN_OUT, "\n", "\r", "\f"):
        answer = answer.replace(each, "")
    for pattern, new in (BRACKETED, *FONTS):
        answer = pattern.sub(new, answer)
    for pattern in LAST_OF:
        found = pattern.findall(answer)
        answer = found[-1] if found else answer
    answer = answer.strip()
    if "\\frac" not in answer:
        answer = answer.replace("rac", "\\frac")
    for pattern, new in (FRACTION, ROOT):
        answer = pattern.sub(new, answer)
    answer = answer.replace("$", "")
    bare = answer.replace(",", "")
    return bare if bare.isdigit() else answer
