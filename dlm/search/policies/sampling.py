"""Independent answers: n of them as they are, and the best of n."""

from __future__ import annotations

from dataclasses import dataclass

from dlm.config.checks import require_integer
from dlm.search.policy import Context, Policy, sample
from dlm.search.work import Run


@dataclass(frozen=True, slots=True)
class Seeds(Policy):
    """`seeds(n)`: decode n answers and take the first; the others are its candidates.

    Answer j draws as choice j of `generate(n=...)`. It is no search: curves have it as the row
    that every search begins with, and programs take the candidates.

    n: answers, decoded side by side
    """

    n: int = 1

    judges = False

    def __post_init__(self) -> None:
        require_integer("n", self.n, 1)

    @property
    def diverse(self) -> bool:
        """See `Policy`."""
        return self.n > 1

    def run(self, search: Context) -> Run:
        """See `Policy`."""
        found = yield [sample(edge) for edge in range(self.n)]
        _, first = found[0]
        return first


@dataclass(frozen=True, slots=True)
class BestOf(Policy):
    """`best_of(n)`: decode n answers and take the one that scores best (of equals the first).

    Answer j draws as choice j of `generate(n=...)`, so the best of 8 is among the first 8 of the
    best of 16. It stops when no other answer could score higher.

    n: answers
    width: answers that are decoded at once; after each batch of them the search may stop
    """

    n: int = 16
    width: int = 4

    def __post_init__(self) -> None:
        require_integer("n", self.n, 1)
        require_integer("width", self.width, 1)

    def run(self, search: Context) -> Run:
        """See `Policy`."""
        for first in range(0, self.n, self.width):
            if search.settled:
                break
            yield [sample(edge) for edge in range(first, min(first + self.width, self.n))]
        return search.best
