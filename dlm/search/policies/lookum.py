"""LookUM: paths that leave little doubt are followed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from dlm.config.argument_types import check_fields
from dlm.config.checks import require_integer, require_number
from dlm.search.policies.drafts import doubt
from dlm.search.policies.particles import shares, systematic
from dlm.search.policy import Context, Policy
from dlm.search.work import Advance, Branch, Complete, Drop, Point, Run, Score, Start


@dataclass(frozen=True, slots=True)
class LookUM(Policy):
    """`lookum(n)`: follow the rows whose last commits leave the rest least uncertain.

    Every few steps the rows are resampled by `exp(-lam * u)`, u the mean of `-log p` of the tokens
    drawn at the positions that were open before the last step: one look ahead, which costs nothing,
    as the forward that judges a set of commits is the next step of its row. Lookahead Unmasking
    (arXiv 2511.05563); with `every` above 1 it is E-SMC of the denoising entropy (arXiv
    2512.21336). The paper draws sets of positions from a pool: give it a rule that draws positions,
    such as `unmask="topk(temperature=0.1)"`.

    n: rows
    lam: the strength of the uncertainty
    every: steps between two comparisons
    """

    n: int = 3
    lam: float = 5.0
    every: int = 1

    tier = "T3"

    def __post_init__(self) -> None:
        check_fields("search", self)
        require_integer("n", self.n, 1)
        require_integer("every", self.every, 1)
        require_number("lam", self.lam, low=0.0)

    def run(self, search: Context) -> Run:
        """See `Policy`."""
        rows, edges = (yield [Start(slot) for slot in range(self.n)]), count()
        for number in count():
            read = [node.open for node in rows]
            yield [Advance(node, Point(steps=self.every)) for node in rows]
            drafts = yield [Complete(node) for node in rows]
            doubts = [doubt(draft, open_) for draft, open_ in zip(drafts, read, strict=True)]
            ended = [node for node in rows if node.done]
            if ended:
                yield [Score(ended)]
            logs = [-self.lam * u for u, node in zip(doubts, rows, strict=True) if not node.done]
            rows = [node for node in rows if not node.done]
            if search.settled or not rows:
                break
            if not number:
                continue  # they have all read the same canvas
            taken = systematic(shares(logs), search.rng("resample", number).random())
            copies = [slot for place, slot in enumerate(taken) if slot in taken[:place]]
            forks = yield [Branch(rows[slot], next(edges)) for slot in copies]
            yield [Drop(node) for slot, node in enumerate(rows) if slot not in taken]
            rows = [node for slot, node in enumerate(rows) if slot in taken] + forks
        return search.best
