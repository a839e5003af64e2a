"""The sheet on which a math problem is worked out, and the words that its stories are made of.

The sheet remembers how each value came about; that tree, with the operands of `+` and `*` sorted,
is the structure key: two stories with the same arithmetic are the same problem.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

MEN: Final = ("Tom", "Ben", "Sam", "Max", "Leo", "Jack", "Omar", "Ivan", "Carl", "Eric")
WOMEN: Final = ("Anna", "Mia", "Lily", "Ella", "Nora", "Rosa", "Zoe", "Lucy", "Dana", "Hana")
PEOPLE: Final = (*((name, "he") for name in MEN), *((name, "she") for name in WOMEN))
THINGS: Final = (
    "apples", "books", "coins", "cards", "pens", "eggs", "toys", "shells", "stamps", "marbles",
    "cookies", "balls",
)  # fmt: skip
CONTAINERS: Final = ("bags", "boxes", "packs", "baskets", "jars")
TIMES: Final[Mapping[int, str]] = {2: "twice", 3: "three times", 4: "four times", 5: "five times"}
GROWS: Final[Mapping[int, str]] = {2: "doubles", 3: "triples", 4: "quadruples"}


@dataclass(frozen=True, slots=True)
class Term:
    """A whole number and the tree of operations it came from."""

    value: int
    tree: Any


@dataclass(slots=True)
class Work:
    """The worked steps of one problem, in order."""

    lines: list[str] = field(default_factory=list)

    def step(self, left: int | Term, op: str, right: int | Term) -> Term:
        """Write one equation down and return its value; division must be exact."""
        a, b = as_term(left), as_term(right)
        value = apply(a.value, op, b.value)
        self.lines.append(f"{a.value}{op}{b.value}={value}")
        operands = (a.tree, b.tree)
        if op in "+*":
            operands = tuple(sorted(operands, key=repr))
        return Term(value, (op, *operands))


def as_term(number: int | Term) -> Term:
    """A plain number is its own tree."""
    return number if isinstance(number, Term) else Term(number, number)


def apply(left: int, op: str, right: int) -> int:
    """One operation on whole numbers."""
    if op == "/":
        assert left % right == 0, f"{left}/{right} is not a whole number"
        return left // right
    return {"+": left + right, "-": left - right, "*": left * right}[op]


Template = Callable[[Random, Work], tuple[str, Term]]


def person(rng: Random) -> tuple[str, str]:
    """A name and what later sentences call its owner: the name again, or a pronoun."""
    name, pronoun = rng.choice(PEOPLE)
    return name, rng.choice((name, pronoun))


def compute(rng: Random) -> str:
    """Draw the verb that asks for an expression's value."""
    return rng.choice(("Compute", "Evaluate", "Find the value of"))
