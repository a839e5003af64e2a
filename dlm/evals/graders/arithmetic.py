"""Countdown: an expression that uses the given numbers once each and comes to the target.

Published graders hand expressions to `eval`. Here a tree of numbers and signs is computed instead,
with Python's own arithmetic: `9**9**9` would keep `eval` busy for ever, and a text may say more
than arithmetic.
"""

from __future__ import annotations

import ast
import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from dlm.evals.graders.maths import TAGGED, boxed_or_text

Number = int | float | complex

ALLOWED: Final = re.compile(r"[\d+\-*/().\s]+$")
"""What d1 takes for an expression."""
WORDS: Final = (("\\div", "/"), ("\\times", "*"), ("\\cdot", "*"))
EQUATION: Final = re.compile(r"([0-9+\-*/() ]+)=[0-9. ]+")
CLOSE: Final = 1e-5
BINARY: Final[Mapping[type[ast.operator], Callable[[Number, Number], Number]]] = MappingProxyType(
    {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
        ast.FloorDiv: operator.floordiv,
        ast.Pow: operator.pow,
    }
)
LARGEST_POWER: Final = 4096
"""Bits of a whole number that a power may come to."""


def evaluate(expression: str) -> Number:
    """Compute numbers with + - * / // ** and brackets as Python does.

    Raises `ValueError` for anything else, for a division by zero, and for a power of more than
    `LARGEST_POWER` bits.
    """
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ArithmeticError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"not to be computed: {error}") from error


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float() | complex() as number):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return +_value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in BINARY:
            return BINARY[type(sign)](_value(left), _value(right))
    raise ValueError(f"holds more than arithmetic: {type(node).__name__}")


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int):
        bits = base.bit_length() * exponent if exponent > 0 and abs(base) > 1 else 0
        if bits > LARGEST_POWER:
            raise ValueError(f"a power of more than {LARGEST_POWER} bits")
    return BINARY[ast.Pow](base, exponent)


def countdown_expression(text: str) -> str:
    """`d1-countdown-v2` (arXiv 2504.12216): the last box, else everything; where a box was left
    open, the text between answer tags, else everything. Of an equation the left side.
    """
    found = boxed_or_text(text)
    if found is None:
        tagged = TAGGED.search(text)
        found = text if tagged is None else tagged[1].strip()
    for word, sign in WORDS:
        found = found.replace(word, sign)
    equation = EQUATION.search(found)
    return found if equation is None else equation[1].strip()


def reaches(expression: str, numbers: Sequence[int], target: int) -> bool:
    """True if an expression uses each of `numbers` once and equals `target`, as d1 checks it."""
    try:
        used = [int(number) for number in re.findall(r"\d+", expression)]
        if sorted(used) != sorted(numbers) or ALLOWED.match(expression) is None:
            return False
        return abs(evaluate(expression) - target) < CLOSE
    except (ValueError, OverflowError):  # a number of too many digits, or nothing to compute
        return False


END_OF_TEXT: Final = "<|end_of_text|>"
BEGINS: Final = re.compile(r"\d+[+\-*/]\d+")
"""What the left side of each equation begins with."""
USED: Final = re.compile(r"(\d+)(?=[+-/*=])")
"""Numbers that an equation uses. The signs are a range, so that a point or a comma counts too."""


def chain_reaches(text: str, numbers: Sequence[str], target: str) -> bool:
    """`44-15=29,79-29=50`: whether each equation of a text's first line is true, the last one comes
    to the target, and every number is used once that is given or was arrived at (Dream, arXiv
    2508.15487). Numbers are compared as they are written.
    """
    line = text.split(END_OF_TEXT)[0].split("\n")[0]
    pool = Counter(numbers)
    for step in line.split(","):
        left, _, right = step.partition("=")
        if step.count("=") != 1 or not _is_true(left, right):
            return False
        pool.subtract(USED.findall(step))
        pool.update([right])
    pool.subtract([target])
    return line.split("=")[-1] == target and not any(pool.values())


def _is_true(left: str, right: str) -> bool:
    if BEGINS.match(left) is None:
        return False
    try:
        return evaluate(left) == float(right)
    except (ValueError, OverflowError):
        return False
