"""Neighbourhood search: open a part of a finished answer and decode it anew."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from dlm.config.checks import require_integer, require_number
from dlm.engine.searching import Candidate
from dlm.search.policy import Context, Policy, finish_watched
from dlm.search.selectors import Pivot, Selector, chosen, parse_selector
from dlm.search.work import Branch, Remask, Run, SearchNode, Start


@dataclass(frozen=True, slots=True)
class Neighbours(Policy):
    """`neighbours(...)`: decode an answer, then again and again open a part of the best one and
    decode that part anew. The neighbour becomes the answer that is changed next unless it is worse.

    Zero-order search of "Inference-time scaling for diffusion models beyond denoising steps"
    (arXiv 2501.09732) with masks for noise: a neighbour keeps `1 - fraction` of the
    answer. It costs that much less than an answer from the prompt, and the end of the text, which
    stays, costs nothing. There, `width` neighbours of one pivot are compared and the best of them
    replaces it; of equals the first does here.

    starts: answers from the prompt, the best of which is changed
    width: neighbours that are decoded at once
    rounds: times that neighbours are decoded
    fraction: share of the answer that is opened
    adapt: factor of `fraction` after a round without a better answer; its inverse after one with
    select: the positions that are opened: a selector or its spec string
    tail: positions of the end of the text that may be opened too, so that the length can change
    patience: rounds without a better answer after which it starts anew from the prompt (0: never)
    """

    starts: int = 1
    width: int = 1
    rounds: int = 48
    fraction: float = 0.85
    adapt: float = 1.0
    select: str | Selector = "random"
    tail: int = 3
    patience: int = 8

    def __post_init__(self) -> None:
        for name in ("starts", "width", "rounds"):
            require_integer(name, getattr(self, name), 1)
        for name in ("tail", "patience"):
            require_integer(name, getattr(self, name), 0)
        require_number("fraction", self.fraction, low=0.01, high=1.0)
        require_number("adapt", self.adapt, low=1.0)
        parse_selector(self.select)

    def run(self, search: Context) -> Run:
        """See `Policy`."""
        done = edge = 0
        top: Candidate | None = None
        while done < self.rounds and not search.settled:
            pivot, best = yield from self._start(search, edge)
            top = _better(top, best)
            edge, failures, fraction = edge + self.starts, 0, self.fraction
            while done < self.rounds and not (search.settled or self._gives_up(failures)):
                fresh = yield from self._round(search, pivot, best, fraction, done)
                done += 1
                top, better = _better(top, fresh[1]), fresh[1].score > best.score
                failures = 0 if better else failures + 1
                fraction = min(fraction / self.adapt if better else fraction * self.adapt, 1.0)
                if fresh[1].score >= best.score:
                    pivot, best = fresh
        return top

    def _gives_up(self, failures: int) -> bool:
        return 0 < self.patience <= failures

    def _start(self, search: Context, edge: int) -> Run:
        """The best of some answers from the prompt, or at first of those that are there, with its
        judgement.
        """
        if not edge and search.best is not None:
            node = search.node(search.best)
            if node.done and node.ids == search.best.answer.canvas:  # no guess, and not let go
                return node, search.best
        found = yield [_sample(search, edge + more) for more in range(self.starts)]
        return _best(found)

    def _round(
        self, search: Context, pivot: SearchNode, judged: Candidate, fraction: float, number: int
    ) -> Run:
        """The best of the neighbours of one answer, with its judgement."""
        first = number * self.width
        edges = range(first, first + self.width)
        found = yield [self._neighbour(search, pivot, judged, fraction, edge) for edge in edges]
        return _best(found)

    def _neighbour(
        self, search: Context, pivot: SearchNode, judged: Candidate, fraction: float, edge: int
    ) -> Run:
        """One neighbour; where nothing may be opened, another answer from the prompt."""
        places = pivot.written + pivot.tail[: self.tail]
        if not places:
            return (yield from _sample(search, self.starts * self.rounds + edge))
        rng = search.rng("neighbours", edge)
        at = Pivot(pivot, judged, places, rng, search.candidates)
        count = min(ceil(fraction * len(places)), len(places))
        positions = yield from chosen(search, parse_selector(self.select), at, count)
        (child,) = yield [Branch(pivot, edge)]
        yield [Remask(child, positions)]
        candidate = yield from finish_watched(search, child)
        return child, candidate


def _sample(search: Context, edge: int) -> Run:
    """An answer from the prompt, with its judgement."""
    (node,) = yield [Start(edge)]
    candidate = yield from finish_watched(search, node)
    return node, candidate


def _best(found: list[tuple[SearchNode, Candidate]]) -> tuple[SearchNode, Candidate]:
    """The pair with the highest score, of equals the first."""
    return max(found, key=lambda pair: pair[1].score)


def _better(one: Candidate | None, other: Candidate) -> Candidate:
    """The answer with the higher score, of equals the first."""
    return other if one is None or other.score > one.score else one
