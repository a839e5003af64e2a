"""Lookahead parallel decoding: rows that save launches."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import count
from math import exp, fsum

from dlm.config.argument_types import check_fields
from dlm.config.checks import require_integer
from dlm.engine.generation import Generation
from dlm.search.policies.canvases import canvas_of
from dlm.search.policies.drafts import draft_logs
from dlm.search.policy import Context, Policy
from dlm.search.work import Advance, Complete, Drop, Point, Run, Score, SearchNode, Start

STEP = Point(steps=1)


@dataclass(frozen=True, slots=True)
class LoPA(Policy):
    """`lopa(branches)`: look at several next commits in one launch, and follow the surest.

    After every step the row is copied with one more token each: those that it is surest of among
    the ones that its rule left open. All copies take the next step together; the one whose open
    positions are surest becomes the row. Lookahead Parallel Decoding (LoPA, arXiv 2512.16229). It
    finds one answer in fewer launches, for more forwards of rows; it pays where a step of a few
    rows costs no more than that of one.

    A copy starts from the canvas and computes the keys of the prompt again: use it with no cache.

    branches: copies beside the row itself
    """

    branches: int = 3

    tier = "T3"
    judges = False
    diverse = False

    def __post_init__(self) -> None:
        check_fields("search", self)
        require_integer("branches", self.branches, 0)

    def run(self, search: Context) -> Run:
        """See `Policy`."""
        edges = count()
        (node,) = yield [Start(next(edges))]
        yield [Advance(node, STEP)]
        while not node.done:
            (draft,) = yield [Complete(node)]
            canvases = [canvas_of(node, extra) for extra in self._extras(node, draft)]
            copies = yield [Start(next(edges), canvas=canvas) for canvas in canvases]
            rows = [node, *copies]
            read = [one.open for one in rows]
            yield [Advance(one, STEP) for one in rows]
            drafts = yield [Complete(one) for one in rows]
            surest = [sureness(one, open_) for one, open_ in zip(drafts, read, strict=True)]
            node = rows[surest.index(max(surest))]
            yield [Drop(one) for one in rows if one is not node]
        ((candidate,),) = yield [Score([node])]
        return candidate

    def _extras(self, node: SearchNode, draft: Generation) -> list[dict[int, int]]:
        """One more token for each copy: the surest that are open."""
        if len(node.open) < 2:
            return []
        logs = draft_logs(draft, node.open)
        surest = sorted(logs, key=lambda at: (-logs[at], at))[: self.branches]
        return [{at: draft.canvas[at]} for at in surest]


def sureness(draft: Generation, positions: Collection[int]) -> float:
    """The mean probability of the tokens at positions that were open (`branch confidence`)."""
    logs = draft_logs(draft, positions).values()
    return fsum(map(exp, logs)) / len(logs) if logs else 1.0
