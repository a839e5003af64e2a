"""Diffusion tree sampling and search, and UCT: trees whose moves are random draws."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from random import Random
from typing import Literal

from dlm.config.checks import require_number
from dlm.search.policies.growing import Growing, Grown, State
from dlm.search.policies.particles import cut, shares
from dlm.search.policy import Context
from dlm.search.work import Branch, Point, Run, Start


@dataclass(frozen=True, slots=True)
class Tree(Growing):
    """`tree(rollouts=...)`: grow a tree of half-filled canvases to where answers score best.

    A rollout descends from the empty canvas to a state that may have another child, forks it,
    decodes to the end and keeps a row at every point on the way; the score is backed up to the
    root. It costs the forwards below the fork alone. Diffusion Tree Sampling and Search (arXiv
    2506.20701, section 4): `select="draw"` is DTS, which samples `p(x) exp(lam * score(x))` in the
    limit, with its soft Bellman backup; the default is DTS*, which takes the best child.
    `backup="mean"` makes it UCT (Kocsis and Szepesvari 2006).

    A state that was visited v times has at most `width * v ** widening` children, rounded up
    (progressive widening). The mean over children in the soft backup has its `1 / |C|`, without
    which values grow with the number of children.

    rollouts: answers that are decoded, at most
    segments: parts of the answer, by the share that is open; there is a state at the end of each
        (0: at the end of every block)
    backup: `soft`: exp(lam v) is the mean of those of the children; `mean` of the rollouts; `max`
    lam: the strength of the score in `soft`
    explore: the weight of the bonus for rare children, in ranges of the scores seen
    parallel: rollouts that set out together, before the score of any of them is known
    select: the child to go on from: `best` by value and bonus, `draw` by `exp(lam * value)`
    width, widening: of the bound on children
    pick: the answer: `best` has the highest score, `draw` is drawn from the tree, as a sample
    """

    select: Literal["best", "draw"] = "best"
    width: float = 2.0
    widening: float = 0.5
    pick: Literal["best", "draw"] = "best"

    tier = "T2"

    def __post_init__(self) -> None:
        Growing.__post_init__(self)
        require_number("width", self.width, low=1.0)
        require_number("widening", self.widening, low=0.0, high=1.0)

    def run(self, search: Context) -> Run:
        """See `Policy`."""
        grown = Grown(search)
        yield from self.grow(grown)
        if self.pick == "best":
            return search.best
        state, rng = grown.root, search.rng("pick")
        while state.answer is None:
            state = self._drawn(state, rng)
        return state.answer

    def new_edge(self, state: State) -> int | None:
        """See `Growing`."""
        most = ceil(self.width * max(state.visits, 1) ** self.widening)
        return len(state.given) if len(state.given) < most else None

    def item(self, state: State, edge: int) -> Start | Branch:
        """See `Growing`."""
        return Start(edge) if state.node is None else Branch(state.node, edge)

    def until(self, state: State) -> Point:
        """See `Growing`."""
        return cut(self.segments, state.depth)

    def choose(self, grown: Grown, state: State) -> State:
        """See `Growing`."""
        if self.select == "best":
            return Growing.choose(self, grown, state)
        return self._drawn(state, grown.search.rng("descend", grown.descents))

    def settled(self, search: Context) -> bool:
        """See `Growing`: a sampler has no score to reach."""
        return self.pick == "best" and search.settled

    def _drawn(self, state: State, rng: Random) -> State:
        """A child, drawn by `exp(lam * value)`."""
        there = [child for child in state.children.values() if child.rolled]
        return rng.choices(there, shares([self.lam * child.value for child in there]))[0]
