"""Metropolis-Hastings over ways of decoding: the rest of an answer is decoded anew, or stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from math import fsum, inf, isnan, log
from typing import Literal, NamedTuple

from dlm.config.checks import require_integer, require_number
from dlm.engine.searching import Candidate
from dlm.search.policies.particles import cut
from dlm.search.policy import Context, Policy
from dlm.search.work import Advance, Branch, Drop, Run, Score, SearchNode, Start


class Way(NamedTuple):
    """A decoded row with the points that it has passed.

    points: the row at the beginning of each segment, parked
    end: the row itself
    answer: its judgement (None: it has not ended)
    """

    points: tuple[SearchNode, ...]
    end: SearchNode
    answer: Candidate | None = None


@dataclass(frozen=True, slots=True)
class BlocksMH(Policy):
    """`blocks_mh(alpha, moves, ...)`: a Markov chain over answers that leaves `p(x)^alpha` as it
    is.

    A move goes back to the beginning of a segment by chance, decodes the rest anew, x', and takes
    it instead of the old rest x with the probability
    `min(1, p(x')^alpha q(x) n / (p(x)^alpha q(x') n'))`: p is the product of the probabilities of
    the tokens at their commits at temperature 1, q that in the distribution they were drawn from,
    n the number of segments. Power sampling: "Reasoning with sampling" (arXiv 2510.14901,
    algorithm 1) from left to right; for masks the independent moves of arXiv 2604.00375.

    The chain is over ways of decoding, so `p` is that of the way. It needs rules that commit each
    position once and choose positions without a look at later draws: no editor. The code of
    dInfer's fork takes no account of q and accepts only improvements: it climbs, and samples
    nothing.

    alpha: exponent; 1 samples the model itself
    moves: of the whole answer
    early: moves after each segment but the last, over the answer so far
    segments: equal parts of the canvas that a way is cut into (0: its blocks)
    pick: the answer: `best` has the highest score, `last` is the last state of the chain, a sample
    """

    alpha: float = 4.0
    moves: int = 8
    early: int = 1
    segments: int = 0
    pick: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        require_number("alpha", self.alpha, low=0.0)
        for name in ("moves", "early", "segments"):
            require_integer(name, getattr(self, name), 0)

    def run(self, search: Context) -> Run:
        """See `Policy`."""
        edges = count()
        (end,) = yield [Start(0)]
        way = Way((), end)
        for segment in count(1):
            way = yield from self._on(way, segment, edges)
            if way.end.done:
                break
            for _ in range(self.early):
                way = yield from self._move(search, way, segment, edges)
        for _ in range(self.moves):
            if self.pick == "best" and search.settled:
                break
            way = yield from self._move(search, way, inf, edges)
        return search.best if self.pick == "best" else way.answer

    def _on(self, way: Way, last: float, edges: Iterator[int]) -> Run:
        """A way that goes on to the end of a segment, counted from 1, or to its own."""
        points, end = list(way.points), way.end
        while len(points) < last and not end.done:
            points += yield [Branch(end, next(edges))]
            yield [Advance(end, cut(self.segments, len(points) - 1))]
        answer = way.answer
        if end.done and answer is None:
            ((answer,),) = yield [Score([end])]
        return Way(tuple(points), end, answer)

    def _move(self, search: Context, way: Way, last: float, edges: Iterator[int]) -> Run:
        """The next state of the chain."""
        edge = next(edges)
        rng = search.rng("move", edge)
        first = rng.randrange(len(way.points))
        point = way.points[first]
        (fork,) = yield [Branch(point, edge)]
        other = yield from self._on(Way(way.points[:first], fork), last, edges)
        gain = self._weight(other.end, point) - self._weight(way.end, point)
        gain += log(len(way.points)) - log(len(other.points))
        accepted = log(1.0 - rng.random()) < gain
        lost = way if accepted else other
        yield [Drop(node) for node in (*lost.points[first:], lost.end)]
        return other if accepted else way

    def _weight(self, end: SearchNode, point: SearchNode) -> float:
        """The logarithm of `p^alpha / q` of what a way has committed since a point."""
        clean, drawn = end.logprobs, end.proposal_logprobs
        committed = [at for at in point.open if not isnan(clean[at])]
        return fsum(self.alpha * clean[at] - drawn[at] for at in committed)
