"""Pruning: many rows at the beginning, few that are decoded to their ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from math import ceil

from dlm.config.checks import require_integer, require_number
from dlm.engine.searching import Candidate
from dlm.errors import InvalidRequest
from dlm.search.policy import Context, Policy, finish, judged
from dlm.search.work import Advance, Branch, Drop, Point, Remask, Run, SearchNode, Start


@dataclass(frozen=True, slots=True)
class Prism(Policy):
    """`prism(n, keep, ...)`: begin n rows; prune them while they are young, by their drafts; decode
    few to the end and take the best.

    Prism (arXiv 2602.01842): at step s the width is `max(keep, ceil(n * decay ** (begin - s)))`;
    at each pruning the best `survivors` that differ are copied until the width is filled. The first
    copy of each goes on as it is; in the others `remask` tokens are opened, drawn from the least
    sure `3 * remask`. The paper's judge is the model itself: `verifier="self_verify"`.

    The reference code adds points for words such as `boxed` to the verdicts, and its math answers
    are voted for; here verdicts stand alone and the best answer is taken. There, a block that ends
    early puts the pruning off; here steps are counted from the beginning of the row.

    n: rows at the beginning
    keep: rows that are decoded to their ends
    survivors: rows that are copied at a pruning
    decay: factor by which the width shrinks with each step
    begin: the step from which the width shrinks
    interval: steps between two prunings
    remask: tokens that are opened in a copy
    """

    n: int = 16
    keep: int = 4
    survivors: int = 2
    decay: float = 1.8
    begin: int = 3
    interval: int = 4
    remask: int = 2

    def __post_init__(self) -> None:
        for name in ("n", "keep", "survivors", "interval"):
            require_integer(name, getattr(self, name), 1)
        for name in ("begin", "remask"):
            require_integer(name, getattr(self, name), 0)
        require_number("decay", self.decay, low=1.01)
        if self.keep > self.n:
            raise InvalidRequest("keep", f"must be at most `n`, which is {self.n}, got {self.keep}")

    def run(self, search: Context) -> Run:
        """See `Policy`."""
        edges, step, ended = count(self.n), self.begin + 1, dict[SearchNode, Candidate]()
        nodes = yield [Start(edge) for edge in range(self.n)]
        yield [Advance(node, Point(steps=step)) for node in nodes]
        while len(nodes) > self.keep and not search.settled:
            nodes = yield from self._pruned(search, nodes, step, edges, ended)
            if len(nodes) > self.keep:
                yield [Advance(node, Point(steps=self.interval)) for node in nodes]
                step += self.interval
        if not search.settled:
            yield [finish(node) for node in nodes if node not in ended]
        return search.best

    def width(self, step: int) -> int:
        """The number of rows after a pruning at a step."""
        shrunk: int = ceil(self.n * self.decay ** (self.begin - step))
        return max(self.keep, shrunk)

    def _pruned(
        self,
        search: Context,
        nodes: Sequence[SearchNode],
        step: int,
        edges: Iterator[int],
        ended: dict[SearchNode, Candidate],
    ) -> Run:
        """The rows that go on: survivors and copies of them.

        ended: the answers of rows that have ended, each judged once
        """
        fresh = [node for node in nodes if node not in ended]
        found = yield [judged(search, node) for node in fresh]
        known = ended | dict(zip(fresh, found, strict=True))
        ended |= {node: answer for node, answer in known.items() if node.done}
        pairs = sorted(((node, known[node]) for node in nodes), key=lambda pair: -pair[1].score)
        width = self.width(step)
        best = self._different(pairs)
        yield [Drop(node) for node in nodes if node not in best]
        copies = [best[i % len(best)] for i in range(len(best), width)]
        made = yield [self._copy(search, node, next(edges)) for node in copies]
        return [*best[:width], *made]

    def _different(self, pairs: Sequence[tuple[SearchNode, Candidate]]) -> list[SearchNode]:
        """The best rows whose drafts differ."""
        kept: dict[tuple[int, ...], SearchNode] = {}
        for node, candidate in pairs:
            kept.setdefault(candidate.answer.ids, node)
        return list(kept.values())[: self.survivors]

    def _copy(self, search: Context, node: SearchNode, edge: int) -> Run:
        """A copy with some of its least sure tokens open."""
        (copy,) = yield [Branch(node, edge)]
        places = copy.written
        least = sorted(places, key=lambda at: (copy.logprobs[at], at))[: 3 * self.remask]
        opened = search.rng("prism", edge).sample(least, min(self.remask, len(least)))
        if opened:
            yield [Remask(copy, opened)]
        return copy
