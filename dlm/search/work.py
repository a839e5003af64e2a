"""The words between a policy and its executor: work items, and the nodes they are done on.

A policy is a generator. It yields a list of items and receives the list of their results, in order,
when all of them are there; a generator among the items is a search of its own that runs beside the
others, and its result is what it returns. What a policy never sees: tensors, pages, batches, other
searches.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from dlm.core import Kind
from dlm.engine.generation import Generation


class SearchNode(Protocol):
    """A hypothesis: a row that is parked or has ended. It changes only by work items.

    number: from 0, in the order of their making
    parent: the node it was forked from (None: it started from the prompt)
    edge: its number among the children of its parent
    depth: forks above it
    """

    number: int
    parent: SearchNode | None
    edge: int
    depth: int

    @property
    def done(self) -> bool:
        """True if the row has ended."""
        ...

    @property
    def ids(self) -> tuple[int, ...]:
        """The canvas, from the prompt to its last position."""
        ...

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kind of each position of the canvas."""
        ...

    @property
    def written(self) -> tuple[int, ...]:
        """The committed positions of the answer before its first end id."""
        ...

    @property
    def tail(self) -> tuple[int, ...]:
        """The committed positions from the first end id of the answer on."""
        ...

    @property
    def open(self) -> tuple[int, ...]:
        """The open positions of the canvas."""
        ...

    @property
    def logprobs(self) -> tuple[float, ...]:
        """Log-probability of each token at its commit, at temperature 1, by position; else NaN."""
        ...

    @property
    def proposal_logprobs(self) -> tuple[float, ...]:
        """The same in the distribution that each token was drawn from."""
        ...

    @property
    def nfe(self) -> int:
        """Forwards of the row, those of its ancestors included."""
        ...


@dataclass(frozen=True, slots=True)
class Point:
    """The point at which a row is parked: the first of these that it reaches, or its end.

    steps: this many forwards further on
    blocks: this many filled blocks further on
    open_ratio: at most this share of the answer is open, of its positions before the first end id
    """

    steps: int | None = None
    blocks: int | None = None
    open_ratio: float | None = None


END: Final = Point()
"""The end of the row."""


@dataclass(frozen=True, slots=True)
class Start:
    """A new row of the prompt, before its first step. Gives a node.

    edge: its number; row `edge` draws as choice `edge` of `generate(n=...)` does
    options: options of generation that differ from those of the search
    canvas: ids that the answer begins with, None where it is open; they may be revised; what is
        beyond `max_new_tokens` is left out
    feedback: words of a verifier that follow the prompt
    likely: ids of each open position that `Guess` makes answers of (0: no guesses)
    """

    edge: int
    options: Mapping[str, Any] = field(default_factory=dict)
    canvas: Sequence[int | None] | None = None
    feedback: str = ""
    likely: int = 0


@dataclass(frozen=True, slots=True)
class Branch:
    """A fork of a node as it stands. Gives the child, which draws its own random numbers.

    edge: its number among the children; the same one gives the same draws
    """

    node: SearchNode
    edge: int


@dataclass(frozen=True, slots=True)
class Advance:
    """Decode a node up to a point. Gives the node."""

    node: SearchNode
    until: Point = END


@dataclass(frozen=True, slots=True)
class Remask:
    """Open committed positions of a node. Gives the node."""

    node: SearchNode
    positions: Sequence[int]


@dataclass(frozen=True, slots=True)
class Complete:
    """The answer of a node if it were filled now; the node stays as it is. Gives a `Generation`.

    steps: forwards that this may take; 0 takes the tokens that its last step drew
    """

    node: SearchNode
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Guess:
    """The likeliest answers of a node if it were filled now, at no forward; it stays as it is.

    The distributions are those of its last step, position by position, of which rows keep the best
    ids that `Start.likely` asks for. Gives a list of `Generation`, the likeliest first; one that is
    open where that step did not read has the finish reason `draft`.

    count: answers, at most
    without: answers that begin with these ids are left out
    """

    node: SearchNode
    count: int
    without: Collection[tuple[int, ...]] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """Judge answers. Gives a `Candidate` for each.

    nodes: those that the answers are of
    answers: what is judged (None: the answers of the nodes, which have ended)
    keep: they are answers of the search; False for guesses at the end of a row that goes on
    """

    nodes: Sequence[SearchNode]
    answers: Sequence[Generation] | None = None
    keep: bool = True


@dataclass(frozen=True, slots=True)
class Drop:
    """Let a node go and free its pages. Gives None."""

    node: SearchNode


@dataclass(frozen=True, slots=True)
class Reread:
    """One forward over the canvas of a node as it is, but for `hidden` positions, which are masked.

    Gives the log-probability of each token, at temperature 1 over all ids, by position.
    """

    node: SearchNode
    hidden: Sequence[int] = ()


Work = Start | Branch | Advance | Remask | Complete | Guess | Reread | Score | Drop
Run: TypeAlias = "Generator[Sequence[Work | Run], list[Any], Any]"
"""A policy at work."""
