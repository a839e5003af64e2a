"""`Hypothesis`: a node of a search on an engine, and what its row has cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from dlm.core import Kind
from dlm.core.canvas import first_end
from dlm.engine.node import Node
from dlm.engine.searching import TreeNode


class RowCosts(NamedTuple):
    """Counts of a row.

    nfe: forwards it took part in, those of its ancestors included
    inherited: the part that another row was billed for
    token_forwards: positions computed, those of its ancestors included
    """

    nfe: int = 0
    inherited: int = 0
    token_forwards: int = 0

    def since(self, before: RowCosts) -> RowCosts:
        """The part that came after an earlier time."""
        return RowCosts(
            self.nfe - before.nfe,
            self.inherited - before.inherited,
            self.token_forwards - before.token_forwards,
        )


@dataclass(slots=True, eq=False)
class Hypothesis:
    """A node with its row on an engine.

    number, parent, edge, depth: as in `SearchNode`
    row: the row
    born: the counts of the row when the node was made
    told: its counts when `gained` was last asked
    work: verbs that were done on it, with the row's forwards after each
    score: of its answer (NaN: not judged)
    dropped: it was let go before its end
    """

    number: int
    parent: Hypothesis | None
    edge: int
    row: Node
    depth: int = 0
    born: RowCosts = field(init=False)
    told: RowCosts = field(init=False)
    work: list[tuple[str, int]] = field(default_factory=list)
    score: float = float("nan")
    dropped: bool = False

    def __post_init__(self) -> None:
        self.depth = 0 if self.parent is None else self.parent.depth + 1
        self.born = self.told = self.counts()

    @property
    def edges(self) -> tuple[int, ...]:
        """The edges from the prompt to the node."""
        return (*(() if self.parent is None else self.parent.edges), self.edge)

    @property
    def done(self) -> bool:
        """True if the row has ended."""
        return self.row.done

    @property
    def rests(self) -> bool:
        """True if no step of the engine moves it."""
        return self.row.done or self.row.parked

    @property
    def ids(self) -> tuple[int, ...]:
        """The canvas."""
        return self.row.ids

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kind of each position."""
        return self.row.kinds

    @property
    def open(self) -> tuple[int, ...]:
        """The open positions."""
        return self.row.open

    @property
    def written(self) -> tuple[int, ...]:
        """The committed positions of the answer before its first end id."""
        return self._committed()[0]

    @property
    def tail(self) -> tuple[int, ...]:
        """The committed positions from the first end id of the answer on."""
        return self._committed()[1]

    @property
    def logprobs(self) -> tuple[float, ...]:
        """Log-probability of each token at its commit, by position."""
        return self.row.logprobs

    @property
    def proposal_logprobs(self) -> tuple[float, ...]:
        """The same in the distribution that each token was drawn from."""
        return self.row.proposal_logprobs

    @property
    def nfe(self) -> int:
        """Forwards of the row, those of its ancestors included."""
        return self.row.nfe

    def counts(self) -> RowCosts:
        """The counts of the row now."""
        return RowCosts(*self.row.counts())

    def own(self) -> RowCosts:
        """The counts since the node was made."""
        return self.counts().since(self.born)

    def gained(self) -> RowCosts:
        """The counts since this was last asked."""
        before, self.told = self.told, self.counts()
        return self.told.since(before)

    def note(self, verb: str) -> None:
        """Write down what was done."""
        self.work.append((verb, self.nfe))

    def note_rest(self) -> None:
        """Write down the forwards since the last note, if there are any."""
        if self.nfe > self.work[-1][1]:
            self.note("advance")

    def shown(self) -> TreeNode:
        """The node as a tree shows it."""
        return TreeNode(
            self.number,
            None if self.parent is None else self.parent.number,
            self.edge,
            tuple(self.work),
            self.row.text() or "",
            self.score,
            self.own().nfe - self.own().inherited,
        )

    def _committed(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The committed positions before the first end id, and from it on."""
        filled = [at for at, kind in enumerate(self.kinds) if kind == Kind.COMMITTED]
        first = first_end(self.ids, self.kinds, self.row.end_ids)
        return tuple(a for a in filled if a < first), tuple(a for a in filled if a >= first)
