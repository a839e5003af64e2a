"""Beam search over half-filled canvases, with a look ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from math import inf

from dlm.config.argument_types import check_fields
from dlm.config.checks import require_integer, require_number
from dlm.errors import InvalidRequest
from dlm.search.policies.particles import cut
from dlm.search.policy import Context, Policy
from dlm.search.work import Advance, Branch, Complete, Drop, Remask, Run, Score, SearchNode, Start


@dataclass(frozen=True, slots=True)
class Beam(Policy):
    """`beam(width, branch)`: keep the rows whose filled canvases score best, and fork those.

    At every point the open positions of each row are filled in a few cheap forwards, the answers
    are scored, and the best rows go on, each as several. Diffusion latent beam search with
    lookahead (DLBS, arXiv 2501.19252), whose advice is to spend on the look ahead first; with
    `lookahead=0` a row is scored on the tokens of its last step, as TReASURe does (arXiv
    2509.23146). With `remask` the forks open their least likely tokens again, so that a beam can
    leave a wrong beginning.

    width: rows that are kept
    branch: rows that each of them becomes, itself included; more where fewer are kept
    segments: parts of the answer, by the share that is open; rows are compared at the end of each
        (0: at the end of every block)
    lookahead: forwards that fill a row to score it; 0 takes the tokens of its last step
    remask: share of its tokens that a fork opens
    siblings: forks of one row that may be kept together (0: any number)
    guesses: as in `smc`
    """

    width: int = 4
    branch: int = 2
    segments: int = 4
    lookahead: int = 1
    remask: float = 0.0
    siblings: int = 0
    guesses: bool = False

    tier = "T3"

    def __post_init__(self) -> None:
        check_fields("search", self)
        for name in ("width", "branch"):
            require_integer(name, getattr(self, name), 1)
        for name in ("segments", "lookahead", "siblings"):
            require_integer(name, getattr(self, name), 0)
        require_number("remask", self.remask, low=0.0, high=1.0)
        if self.remask and not self.lookahead:
            raise InvalidRequest("lookahead", "must be at least 1 with `remask`, got 0")

    def run(self, search: Context) -> Run:
        """See `Policy`."""
        rows = yield [Start(edge) for edge in range(self.width * self.branch)]
        families, scores = list(range(len(rows))), dict[int, float]()
        for number in count():
            moving = [node for node in rows if not node.done]
            yield [Advance(node, cut(self.segments, number)) for node in moving]
            yield from self._judge(search, moving, scores)
            kept = self._best(rows, families, scores)
            yield [Drop(node) for node in rows if node not in kept and not node.done]
            if search.settled or all(node.done for node in kept):
                break
            rows, families = yield from self._widened(kept, number)
        return search.best

    def _judge(self, search: Context, moved: Sequence[SearchNode], scores: dict[int, float]) -> Run:
        """Score rows at a point: those that have ended by their answers."""
        ended = [node for node in moved if node.done]
        answers = (yield [Score(ended)])[0] if ended else []
        scores |= dict.fromkeys([node.number for node in moved], -inf)
        others = [] if search.settled else [node for node in moved if not node.done]
        filled = yield [Complete(node, self.lookahead) for node in others]
        guesses = (yield [Score(others, filled, keep=self.guesses)])[0] if others else []
        for node, one in zip([*ended, *others], [*answers, *guesses], strict=True):
            scores[node.number] = one.score

    def _best(
        self, rows: Sequence[SearchNode], families: Sequence[int], scores: dict[int, float]
    ) -> list[SearchNode]:
        """The best rows, of equal canvases one; of equal scores the first."""
        kept, taken = dict[tuple[int, ...], SearchNode](), list[int]()
        ranked = sorted(zip(rows, families, strict=True), key=lambda one: -scores[one[0].number])
        for node, family in ranked:
            full = self.siblings and taken.count(family) >= self.siblings
            if len(kept) < self.width and not full and node.ids not in kept:
                kept[node.ids] = node
                taken.append(family)
        return list(kept.values())

    def _widened(self, kept: Sequence[SearchNode], number: int) -> Run:
        """The rows that the kept ones become, and the one that each comes from."""
        going, slots = [node for node in kept if not node.done], self.width * self.branch
        each = range(1, max(slots // len(going), 1))
        items = [Branch(node, number * slots + fork) for node in going for fork in each]
        forks = yield items
        if self.remask:
            yield [Remask(fork, positions) for fork in forks if (positions := self._weak(fork))]
        families = [node.number for node in kept] + [item.node.number for item in items]
        return [*kept, *forks], families

    def _weak(self, node: SearchNode) -> list[int]:
        """The positions of the least likely tokens of a row."""
        found = sorted(node.written, key=lambda at: (node.logprobs[at], at))
        return sorted(found[: int(self.remask * len(found))])
