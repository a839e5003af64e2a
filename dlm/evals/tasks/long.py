"""A question on one or two lines of a long ledger: retrieval, then at most one computation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Final

from dlm.evals.tasks.base import CLOSED, Example
from dlm.evals.tasks.math import BOXED
from dlm.evals.tasks.math_sheet import PEOPLE, THINGS

Line = tuple[str, str, int]
LINES: Final[Mapping[str, int]] = MappingProxyType(
    {"48": 3, "64": 5, "128": 13, "256": 29, "512": 61}
)
RUNG_WEIGHTS: Final = (0.2, 0.26, 0.3, 0.16, 0.08)
KINDS: Final = ("find", "find", "sum", "difference")
LIST_SHARE: Final = 0.65
"""Questions for the lines of several people in a short ledger, in training only.

A model that has to find one price an answer does not learn to find anything. What the people bought
is one token close to their names: that is found first, in ledgers of two lines, then the prices.
"""
LISTS: Final = (2, 3, 4, 6, 8, 13)
MOST_LISTED: Final = 8
"""Lengths of such ledgers, and how many of their lines are asked for at most."""


@dataclass(frozen=True, slots=True)
class Long:
    """Rungs: the length of the prompt in tokens, kept by the number of lines; closed lists."""

    name: str = "long"
    canvas: int = 40

    def make(self, rng: Random) -> Example:
        """Draw a ledger of a rung's length, the lines that are asked for, and the question."""
        if rng.random() < LIST_SHARE:
            return self._list(rng)
        (rung,) = rng.choices(tuple(LINES), weights=RUNG_WEIGHTS)
        ledger = draw_ledger(rng, LINES[rung])
        kind = rng.choice(KINDS)
        places = pick(rng, ledger, 1 if kind == "find" else 2)
        if kind == "difference":
            places.sort(key=lambda place: -ledger[place][2])
        chosen = [ledger[place] for place in places]
        question, lines, result = ask(rng, kind, chosen)
        parts = [(place, ledger[place][2]) for place in places]
        written = "\n".join(map(entry, ledger))
        return Example(
            task=self.name,
            rung=rung,
            key=(self.name, rung, kind, tuple(sorted(parts) if kind == "sum" else parts)),
            prompt=f"{written}\n{question}",
            answer="\n".join([*map(entry, chosen), *lines, f"\\boxed{{{result}}}"]),
            meta={"gold": str(result), "lines": places},
        )

    def grade(self, example: Example, text: str) -> bool:
        """The last `\\boxed{}` must hold the result; a list must be the lines."""
        if example.meta["gold"] is None:
            return text.strip() == example.answer
        boxes = BOXED.findall(text)
        return bool(boxes) and boxes[-1].strip() == example.meta["gold"]

    def _list(self, rng: Random) -> Example:
        """A question for some lines, answered by quoting them."""
        ledger = draw_ledger(rng, rng.choice(LISTS))
        places = pick(rng, ledger, rng.randint(1, min(MOST_LISTED, len(ledger))))
        chosen = [ledger[place] for place in places]
        names = ", ".join(name for name, _, _ in chosen)
        return Example(
            task=self.name,
            rung="closed",
            key=(CLOSED, self.name, len(ledger), tuple(places)),
            prompt="\n".join(map(entry, ledger)) + f"\nLines of {names}?",
            answer="\n".join(map(entry, chosen)),
            meta={"gold": None, "lines": places},
        )


def entry(line: Line) -> str:
    """A line of the ledger, quoted unchanged: the key, then the value."""
    name, thing, price = line
    return f"{name}, {thing}: {price}"


def draw_ledger(rng: Random, count: int) -> list[Line]:
    """Lines with different pairs of a name and a thing.

    In a short ledger every name occurs once and tells the line, in one that is longer than the
    list of names about three times.
    """
    people = [name for name, _ in PEOPLE]
    if count <= len(people):
        pairs = [(name, rng.choice(THINGS)) for name in rng.sample(people, count)]
    else:
        names = rng.sample(people, count // 3)
        pairs = rng.sample([(name, thing) for name in names for thing in THINGS], count)
    return [(name, thing, rng.randint(10, 60)) for name, thing in pairs]


def pick(rng: Random, ledger: Sequence[Line], count: int) -> list[int]:
    """Places of `count` lines of different names."""
    while True:
        places = rng.sample(range(len(ledger)), count)
        if len({ledger[place][0] for place in places}) == count:
            return places


def ask(rng: Random, kind: str, chosen: Sequence[Line]) -> tuple[str, list[str], int]:
    """The question about the chosen lines, its worked step and its result."""
    name, thing, price = chosen[0]
    if kind == "find":
        return f"How much did {name} pay for {thing}?", [], price
    other, its, less = chosen[1]
    if kind == "sum":
        question = f"How much did {name} pay for {thing} and {other} for {its} together?"
        return question, [f"{price}+{less}={price + less}"], price + less
    forms = (
        f"How much more did {name} pay for {thing} than {other} for {its}?",
        f"How much less did {other} pay for {its} than {name} for {thing}?",
    )
    return rng.choice(forms), [f"{price}-{less}={price - less}"], price - less
