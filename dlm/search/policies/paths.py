"""Search over paths: half-filled canvases are opened a little, filled more, and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from math import inf

from dlm.config.checks import require_integer, require_number
from dlm.engine.searching import Candidate
from dlm.errors import InvalidRequest
from dlm.search.policy import Context, Policy, judged
from dlm.search.work import Advance, Branch, Drop, Point, Remask, Run, SearchNode, Start

Scored = tuple[SearchNode, Candidate]


@dataclass(frozen=True, slots=True)
class Paths(Policy):
    """`paths(width, copies, ...)`: keep the best of several half-filled answers, open a share of
    each of their copies by chance, fill a larger share, and so on to the end.

    "Search over paths" of arXiv 2501.09732 with masks for noise: there, copies of the
    survivors are noised back by df and denoised by db > df. Canvases are judged by their drafts:
    the tokens that the last forward drew for the open positions, which cost nothing.

    width: canvases that survive
    copies: of each survivor
    start: share of the answer that is open when they are compared for the first time
    back: share of the answer that is opened in a copy
    forward: share of the answer that is filled then; more than `back`
    """

    width: int = 2
    copies: int = 2
    start: float = 0.5
    back: float = 0.125
    forward: float = 0.375

    def __post_init__(self) -> None:
        require_integer("width", self.width, 1)
        require_integer("copies", self.copies, 1)
        for name in ("start", "back", "forward"):
            require_number(name, getattr(self, name), low=0.0, high=1.0)
        if self.forward <= self.back:
            rule = f"must be more than `back`, which is {self.back:g}"
            raise InvalidRequest("forward", f"{rule}, got {self.forward:g}")

    def run(self, search: Context) -> Run:
        """See `Policy`."""
        edges, still_open = count(), self.start
        nodes = yield [Start(next(edges)) for _ in range(self.width * self.copies)]
        yield [self._fill(node, still_open) for node in nodes]
        while not search.settled:
            best = yield from self._best(search, nodes)
            if still_open == 0 or search.settled:
                break
            still_open = max(round(still_open + self.back - self.forward, 6), 0.0)
            nodes = yield [
                self._copy(search, node, next(edges), still_open)
                for node, _ in best
                for _ in range(self.copies)
            ]
            yield [Drop(node) for node, _ in best]
        return search.best

    def _best(self, search: Context, nodes: Sequence[SearchNode]) -> Run:
        """The nodes that survive, with their judgements."""
        found = yield [judged(search, node) for node in nodes]
        pairs = sorted(zip(nodes, found, strict=True), key=lambda pair: -pair[1].score)
        yield [Drop(node) for node, _ in pairs[self.width :]]
        return pairs[: self.width]

    def _copy(self, search: Context, node: SearchNode, edge: int, still_open: float) -> Run:
        """A copy, opened and filled up to a share of the answer that is open.

        The first end id may be opened, too, so that the length can change.
        """
        (copy,) = yield [Branch(node, edge)]
        filled, before_end = sorted(copy.written + copy.tail[:1]), min(copy.tail, default=inf)
        whole = len(copy.written) + sum(at < before_end for at in copy.open)
        number = min(round(self.back * whole), len(filled))
        if number:
            opened = search.rng("paths", edge).sample(filled, number)
            yield [Remask(copy, opened)]
        return (yield from self._fill(copy, still_open))

    def _fill(self, node: SearchNode, still_open: float) -> Run:
        """A node after at least one step, which gives it a draft."""
        yield [Advance(node, Point(steps=1))]
        yield [Advance(node, Point(open_ratio=still_open))]
        return node
