"""Countdown: an expression that uses the given numbers once each and comes to the target.

Expressions are read by a parser of their own and computed with fractions. Nothing is ever handed to
`eval`: `9**9**9` would keep it busy for ever.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Final, NamedTuple

from dlm.evals.graders.maths import BOXES, TAGGED, last_box

LONGEST: Final = 400
"""Characters of an expression; a longer one is no answer."""
DEEPEST: Final = 40
"""Brackets inside brackets."""
DIGITS: Final = 12
TOKEN: Final = re.compile(r"\s*(?:(\d+)|([-+*/()]))")
WORDS: Final = (("\\div", "/"), ("\\times", "*"), ("\\cdot", "*"))
EQUATION: Final = re.compile(r"([0-9+\-*/() ]+)=[0-9. ]+")


class Reached(NamedTuple):
    """What an expression comes to, and the numbers that stand in it."""

    value: Fraction
    numbers: list[int]


def evaluate(expression: str) -> Reached:
    """Compute whole numbers with + - * / and brackets, exactly.

    Raises `ValueError` for anything else, and for a division by zero.
    """
    return _Parser(expression).whole()


def countdown_expression(text: str) -> str:
    """`d1-countdown-v1` (arXiv 2504.12216): the last box, else what stands between answer tags,
    else everything; of an equation the left side.
    """
    found = last_box(text) if any(box in text for box in BOXES) else text
    if found is None:
        tagged = TAGGED.search(text)
        found = text if tagged is None else tagged[1].strip()
    for word, sign in WORDS:
        found = found.replace(word, sign)
    equation = EQUATION.search(found)
    return found if equation is None else equation[1].strip()


def reaches(expression: str, numbers: Sequence[int], target: int) -> bool:
    """Whether an expression uses each of `numbers` once and comes to `target`."""
    try:
        reached = evaluate(expression)
    except ValueError:
        return False
    return sorted(reached.numbers) == sorted(numbers) and reached.value == target


STEP: Final = re.compile(r"(\d{1,12})([-+*/])(\d{1,12})=(-?\d{1,12})")


def chain_reaches(line: str, numbers: Sequence[int], target: int) -> bool:
    """`44-15=29,79-29=50`: whether each equation is true and uses what is there, and the last one
    comes to the target and leaves nothing over (Dream, arXiv 2508.15487).
    """
    pool = list(numbers)
    value: int | None = None
    for step in line.replace(" ", "").split(","):
        found = STEP.fullmatch(step)
        if found is None:
            return False
        value = int(found[4])
        try:
            if evaluate(f"{found[1]}{found[2]}{found[3]}").value != value:
                return False
            for used in (int(found[1]), int(found[3])):
                pool.remove(used)
        except ValueError:  # not in the pool, or a division by zero
            return False
        pool.append(value)
    return pool == [target] and value == target


class _Parser:
    """Recursive descent: a sum of products of signed numbers and brackets."""

    def __init__(self, expression: str) -> None:
        if len(expression) > LONGEST:
            raise ValueError(f"longer than {LONGEST} characters")
        self.tokens, self.at, self.depth = _tokens(expression), 0, 0
        self.numbers: list[int] = []

    def whole(self) -> Reached:
        value = self.sum()
        if self.at < len(self.tokens):
            raise ValueError(f"ends before {self.tokens[self.at]!r}")
        return Reached(value, self.numbers)

    def sum(self) -> Fraction:
        value = self.product()
        while (sign := self.take("+", "-")) is not None:
            other = self.product()
            value = value + other if sign == "+" else value - other
        return value

    def product(self) -> Fraction:
        value = self.signed()
        while (sign := self.take("*", "/")) is not None:
            other = self.signed()
            if sign == "/" and other == 0:
                raise ValueError("divides by zero")
            value = value * other if sign == "*" else value / other
        return value

    def signed(self) -> Fraction:
        negative = False
        while (sign := self.take("+", "-")) is not None:
            negative ^= sign == "-"
        value = self.atom()
        return -value if negative else value

    def atom(self) -> Fraction:
        if self.take("(") is not None:
            self.depth += 1
            if self.depth > DEEPEST:
                raise ValueError(f"more than {DEEPEST} brackets inside each other")
            value = self.sum()
            if self.take(")") is None:
                raise ValueError("a bracket is never closed")
            self.depth -= 1
            return value
        if self.at == len(self.tokens) or not self.tokens[self.at].isdigit():
            raise ValueError("a number is missing")
        number = int(self.tokens[self.at])
        self.at += 1
        self.numbers.append(number)
        return Fraction(number)

    def take(self, *signs: str) -> str | None:
        if self.at < len(self.tokens) and self.tokens[self.at] in signs:
            self.at += 1
            return self.tokens[self.at - 1]
        return None


def _tokens(expression: str) -> list[str]:
    """Numbers and signs. Raises `ValueError` for any other character, and for long numbers."""
    tokens, at, text = [], 0, expression.strip()
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"holds {text[at]!r}")
        if len(found[1] or "") > DIGITS:
            raise ValueError(f"holds a number of more than {DIGITS} digits")
        tokens.append(found[1] or found[2])
        at = found.end()
    return tokens
