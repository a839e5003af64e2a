"""The problems that searches are measured on: the hardest steps of the tasks' ladders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Final

from dlm.errors import unknown_name
from dlm.evals.items import Item, bundled_items, check_limit
from dlm.evals.tasks import Split, sample

PLAIN: Final = (
    "confidence",
    "path_logprob",
    "path_entropy",
    "pll",
    "self_verify",
    "majority",
)
"""Judges that suit any task."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """The problems of one task that searches are measured on.

    rungs: the steps of its ladder
    verifier: the judge that needs no right answer and suits the task best
    others: more judges that need none
    shows_tests: only problems whose prompt shows a test
    votes: answers are short, and the best baseline is a vote of them
    """

    rungs: frozenset[str]
    verifier: str
    others: tuple[str, ...] = PLAIN
    shows_tests: bool = False
    votes: bool = False

    @property
    def verifiers(self) -> list[str]:
        """All its judges."""
        return [self.verifier, *self.others]

    def holds(self, item: Item) -> bool:
        """True if an item is one of these problems."""
        return item.rung in self.rungs and (not self.shows_tests or bool(item.meta["public"]))


LADDERS: Final[Mapping[str, Ladder]] = MappingProxyType(
    {
        "countdown": Ladder(
            frozenset({"3-numbers", "4-numbers"}), "rules", (*PLAIN, "self_verify(of='equations')")
        ),
        "sudoku": Ladder(frozenset({"11-holes"}), "rules"),
        "code": Ladder(frozenset({"6-op", "7-op", "8-op"}), "tests", shows_tests=True),
        "math": Ladder(
            frozenset({"crowded"}),
            "confidence",
            tuple(name for name in PLAIN if name != "confidence"),
            votes=True,
        ),
    }
)
"""Task -> its problems."""


def ladder_of(task: str) -> Ladder:
    """The problems of a task. Raises `InvalidRequest` for a task that has none."""
    if task not in LADDERS:
        raise unknown_name("tasks", task, LADDERS)
    return LADDERS[task]


def problems(task: str, split: Split, count: int) -> list[Item]:
    """Different problems of a task: those of its bundled set, then new ones of the same split.

    The new ones are the same in every program. Raises `InvalidRequest` for an unknown task or
    split, and for a count below 1.
    """
    ladder = ladder_of(task)
    check_limit(count)
    bundled = bundled_items(task, split)
    found = [item for item in bundled if ladder.holds(item)][:count]
    seen, rng = {item.prompt for item in bundled}, Random(f"search {task} {split}")
    while len(found) < count:
        drawn = sample(rng, split, task)
        name = f"{task}-{split}-more-{len(found):04}"
        item = Item(name, task, drawn.rung, drawn.prompt, drawn.answer, dict(drawn.meta))
        if ladder.holds(item) and item.prompt not in seen:
            seen.add(item.prompt)
            found.append(item)
    return found
