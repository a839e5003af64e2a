"""Order-Token Search: a beam whose rows differ in the order in which they are filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from math import isnan
from typing import Literal, NamedTuple

from dlm.config.argument_types import check_fields
from dlm.config.checks import require_integer
from dlm.core import Kind
from dlm.engine.searching import Candidate
from dlm.search.policies.canvases import by_rule, canvas_of, check_rules
from dlm.search.policies.particles import cut
from dlm.search.policy import Context, Policy
from dlm.search.work import Advance, Complete, Drop, Run, Score, SearchNode, Start

ORDERS = ("topk", 'topk(score="left")', 'topk(score="random")')


class Way(NamedTuple):
    """A row with the likelihood of all that it has written.

    node: the row (None: the empty canvas)
    total: the sum of the log-probabilities of its tokens
    tokens: their number
    score: that by which it is compared
    answer: the answer of a row that has ended
    """

    node: SearchNode | None
    total: float = 0.0
    tokens: int = 0
    score: float = 0.0
    answer: Candidate | None = None


@dataclass(frozen=True, slots=True)
class Order(Policy):
    """`order(width)`: a beam over orders of filling and tokens at once.

    At every point each row goes on once in each of several orders, drawing its own tokens; the rows
    are pruned by the mean log-probability of what they have written. Order-Token Search (arXiv
    2601.20339). The paper estimates the likelihood of a new segment anew, given what stood before
    it; `estimate="path"` takes the log-probabilities at the commits, and `"score"` the verifier's
    judgement of the row, filled in one more forward, for which `pll` re-scores all rows by the same
    masks. Without a verifier the answer is the way of the highest likelihood.

    Every way on starts a new row from the canvas, so it computes the keys of the prompt again, and
    the answer knows the likelihoods of its last segment alone: judge it by its text.

    width: rows that are kept
    orders: values of `unmask`, one for each way that a row goes on; empty for the request's
    segments: parts of the answer, by the share that is open; rows are compared at the end of each
    estimate: `path` or `score`
    """

    width: int = 2
    orders: tuple[str, ...] = ORDERS
    segments: int = 4
    estimate: Literal["path", "score"] = "path"

    tier = "T3"
    judges = False

    def __post_init__(self) -> None:
        check_fields("search", self)
        for name in ("width", "segments"):
            require_integer(name, getattr(self, name), 1)
        check_rules("orders", self.orders)

    def run(self, search: Context) -> Run:
        """See `Policy`."""
        kept, edges = [Way(None)] * self.width, count()
        for number in range(self.segments):
            going = [way for way in kept if way.node is None or not way.node.done]
            parents = [way for way in going for _ in self.orders]
            rules = [rule for _ in going for rule in self.orders]
            nodes = yield [
                Start(next(edges), by_rule(rule), canvas_of(way.node) if way.node else None)
                for way, rule in zip(parents, rules, strict=True)
            ]
            yield [Advance(node, cut(self.segments, number)) for node in nodes]
            yield [Drop(way.node) for way in going if way.node is not None]
            ways = yield from self._judged(parents, nodes)
            kept = self._best([way for way in kept if way.answer is not None] + ways)
            rows = {way.node for way in kept}
            yield [Drop(node) for node in nodes if node not in rows and not node.done]
            if search.settled or all(way.answer is not None for way in kept):
                break
        judged = search.best is not None and not isnan(search.best.score)
        return search.best if judged else kept[0].answer

    def _judged(self, parents: Sequence[Way], nodes: Sequence[SearchNode]) -> Run:
        """The rows as ways; answers of rows that have ended are judged."""
        ways = [_longer(way, node) for way, node in zip(parents, nodes, strict=True)]
        ended = [node for node in nodes if node.done]
        answers = iter((yield [Score(ended)])[0] if ended else ())
        ways = [
            way._replace(answer=next(answers)) if node.done else way
            for way, node in zip(ways, nodes, strict=True)
        ]
        if self.estimate == "path":
            return ways
        others = [node for node in nodes if not node.done]
        filled = yield [Complete(node, 1) for node in others]
        guesses = iter((yield [Score(others, filled, keep=False)])[0] if others else ())
        return [_scored(way, way.answer or next(guesses)) for way in ways]

    def _best(self, ways: Sequence[Way]) -> list[Way]:
        """The best ways, of equal canvases one; of equal scores the first."""
        kept = dict[tuple[int, ...], Way]()
        for way in sorted(ways, key=lambda one: -one.score):
            if way.node is not None and len(kept) < self.width:
                kept.setdefault(way.node.ids, way)
        return list(kept.values())


def _scored(way: Way, judged: Candidate) -> Way:
    """A way compared by its score, where it has one."""
    return way if isnan(judged.score) else way._replace(score=judged.score)


def _longer(way: Way, node: SearchNode) -> Way:
    """A way with the tokens that a new row has written after it."""
    fresh = [
        log
        for log, kind in zip(node.logprobs, node.kinds, strict=True)
        if kind == Kind.COMMITTED and not isnan(log)
    ]
    total, tokens = way.total + sum(fresh), way.tokens + len(fresh)
    return Way(node, total, tokens, total / max(tokens, 1))
