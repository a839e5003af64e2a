"""Common parts of the bundled tasks: the example, the split rule and the task protocol.

An example belongs to a split by its *structure* (parameters, order of operations, grid), never by
its wording, so that two surface forms of one problem cannot sit on both sides of the fence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Literal, Protocol

Split = Literal["train", "dev", "test"]
Key = tuple[Any, ...]
"""Structure of a problem: nested tuples of strings and whole numbers (their `repr` is hashed)."""

CLOSED: Final = "closed"
"""First element of the keys of closed categories (greetings, capitals): they are train only."""
HELD_OUT: Final = "held-out"
"""First element of the keys of problems beyond all that training shows: half dev, half test."""

DEV_FROM: Final = 9_400
TEST_FROM: Final = 9_700
BUCKETS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Example:
    """One problem: its prompt, one correct answer, and data for its grader.

    `rung` is the step of the task's difficulty ladder; `meta` holds JSON values only, so that
    examples can be written to a file and graded later.
    """

    task: str
    rung: str
    key: Key
    prompt: str
    answer: str
    meta: Mapping[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """A generator of problems and the grader of their answers.

    `canvas` is the number of tokens that holds every answer of the task and its EOS.
    """

    @property
    def name(self) -> str:
        """The word used in the mix, in reports and in `Example.task`."""

    @property
    def canvas(self) -> int:
        """Tokens that hold any answer and its EOS."""

    def make(self, rng: Random) -> Example:
        """Draw one example of any split; the same state of `rng` gives the same example."""

    def grade(self, example: Example, text: str) -> bool:
        """True if `text` is a correct answer; never raises on malformed text."""


def split_of(key: Key) -> Split:
    """The split of a structure: 94% train, 3% dev, 3% test.

    Closed categories are always in train, held-out structures never are.
    """
    first = key[0] if key else None
    if first == CLOSED:
        return "train"
    digest = hashlib.sha256(repr(key).encode()).digest()
    bucket = int.from_bytes(digest[:8], "big") % BUCKETS
    if first == HELD_OUT:
        return "dev" if bucket < BUCKETS // 2 else "test"
    if bucket < DEV_FROM:
        return "train"
    return "dev" if bucket < TEST_FROM else "test"
