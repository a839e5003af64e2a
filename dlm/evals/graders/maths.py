"""Answers of the MATH kind: the content of the last box, and equality of answers.

The normal form is that of the MATH dataset's own evaluation (Hendrycks et al., arXiv 2103.03874),
which most published scores use; it compares strings, so `1,000` and `1000` differ under it.
"""

from __future__ import annotations

import re
from typing import Final

BOXES: Final = ("\\boxed", "\\fbox")
OPENED: Final = "\\boxed{"
TAGGED: Final = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
SAID: Final = re.compile(r"final answer is:?\s*\$(.+?)\$", re.IGNORECASE | re.DOTALL)

REWRITTEN: Final = (
    ("\n", ""),
    ("\\!", ""),
    ("\\\\", "\\"),
    ("tfrac", "frac"),
    ("dfrac", "frac"),
    ("\\left", ""),
    ("\\right", ""),
    ("^{\\circ}", ""),
    ("^\\circ", ""),
    ("\\$", ""),
)
"""What is written alike first, in this order."""
UNIT: Final = "\\text{ "
"""Begins a unit at the end of an answer."""
LONGEST_NAME: Final = 2
"""`x=` and `k =` before an answer are left out, longer left sides are part of it."""
FRACTION: Final = re.compile(r"-?\d+")


def last_box(text: str) -> str | None:
    """Content of the last `\\boxed{...}` or `\\boxed ...` of a text, else of the last
    `\\fbox{...}`; None if there is no box, or where the last one is never closed.
    """
    if "\\boxed " in text:
        return text.rsplit("\\boxed ", 1)[1].split("$", 1)[0]
    found = _box_string(text)
    return None if found is None else found[found.index("{") + 1 : -1]


def last_braced_box(text: str) -> str | None:
    """Content of the last box of a text; None unless that is a closed `\\boxed{...}`."""
    found = _box_string(text) or ""
    return found[len(OPENED) : -1] if found.startswith(OPENED) else None


def _box_string(text: str) -> str | None:
    """The last box, an `\\fbox` if there is no other, up to the brace that closes the first one
    after it; None if there is no box and if none closes.
    """
    start = next((at for at in map(text.rfind, BOXES) if at >= 0), len(text))
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if text[at] == "}" and depth == 0:
            return text[start : at + 1]
    return None


def boxed_answer(text: str) -> str | None:
    """`boxed-v1`: the last box, else `the final answer is $...$`; None if there is neither."""
    found = last_box(text)
    if found is None and (said := SAID.findall(text)):
        return str(said[-1]).strip()
    return found


def boxed_or_text(text: str) -> str | None:
    """Extract an answer as d1 (arXiv 2504.12216) does.

    That is the content of the last box, the text itself if it has no box, None if the last box is
    never closed. Boxes other than `\\boxed{...}` and `\\boxed ...` stay around their content.
    """
    if "\\boxed " in text:
        return text.rsplit("\\boxed ", 1)[1].split("$", 1)[0]
    if not any(box in text for box in BOXES):
        return text
    found = _box_string(text)
    return found[len(OPENED) : -1] if found and found.startswith(OPENED) else found


def boxed_or_tagged(text: str) -> str | None:
    """`d1-v2`: the same, or if that is empty the text between answer tags."""
    found = boxed_or_text(text)
    tagged = None if found else TAGGED.search(text)
    return found if tagged is None else tagged[1].strip()


def equivalent(answer: str | None, reference: str) -> bool:
    """True if two answers have the same normal form; if one has none, if they are equal strings."""
    if answer is None:
        return False
    try:
        return normal_form(answer) == normal_form(reference)
    except ValueError:
        return answer == reference


def normal_form(answer: str) -> str:
    """An answer written in one way. Raises `ValueError` for what the form does not cover: two
    units, `\\frac` or `\\sqrt` without anything after it, a quotient of anything but integers.
    """
    for old, new in REWRITTEN:
        answer = answer.replace(old, new)
    answer = _without_unit(answer).replace("\\%", "")
    answer = answer.replace(" .", " 0.").replace("{.", "{0.")
    if not answer:
        return answer
    answer = "0" + answer if answer[0] == "." else answer
    answer = _braced_roots(without_name(answer)).replace(" ", "")
    parts = answer.split("\\frac")[1:]
    if next((part for part in parts if len(part) < 2 and part != "{"), None) == "":
        raise ValueError("a fraction of nothing")
    answer = braced_fractions(answer)
    return quotient("\\frac{1}{2}" if answer == "0.5" else answer)


def _without_unit(answer: str) -> str:
    if answer.count(UNIT) > 1:
        raise ValueError("an answer has one unit at the most")
    return answer.split(UNIT)[0]


def without_name(answer: str) -> str:
    """An answer without `x=` or `k =` before it."""
    sides = answer.split("=")
    return sides[1] if len(sides) == 2 and len(sides[0]) <= LONGEST_NAME else answer


def _braced_roots(answer: str) -> str:
    """`\\sqrt3` as `\\sqrt{3}`."""
    first, *rest = answer.split("\\sqrt")
    if any(not part for part in rest):
        raise ValueError("a root of nothing")
    roots = (part if part[0] == "{" else f"{{{part[0]}}}{part[1:]}" for part in rest)
    return first + "".join(f"\\sqrt{root}" for root in roots)


def braced_fractions(answer: str) -> str:
    """`\\frac12`, `\\frac1{72}` as `\\frac{1}{2}`, `\\frac{1}{72}`; as it is where one is cut
    short.
    """
    first, *rest = answer.split("\\frac")
    fractions = []
    for part in rest:
        if part.startswith("{"):
            fractions.append(part)
        elif len(part) < 2:
            return answer
        else:
            below = part[1:] if part[1] == "{" else f"{{{part[1]}}}{part[2:]}"
            fractions.append(f"{{{part[0]}}}{below}")
    return first + "".join(f"\\frac{fraction}" for fraction in fractions)


def quotient(answer: str) -> str:
    """`1/2` as `\\frac{1}{2}`. Raises `ValueError` for a quotient of anything but integers."""
    parts = answer.split("/")
    if len(parts) != 2:
        return answer
    above, below = (int(part) for part in parts)
    return f"\\frac{{{above}}}{{{below}}}" if answer == f"{above}/{below}" else answer
