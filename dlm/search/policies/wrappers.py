"""Ways to share out forwards: policies one after another, and tries that roll over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from math import inf
from random import Random
from types import GeneratorType
from typing import Any

from dlm.config.checks import require_integer, require_number
from dlm.errors import InvalidRequest, shown
from dlm.search.frames import run_of
from dlm.search.policies.particles import cut
from dlm.search.policy import Context, Policy
from dlm.search.verifier import Verifier
from dlm.search.work import Advance, Branch, Complete, Drop, Run, Score, SearchNode, Start

APART = 1 << 40
"""Edges of a stage of a cascade begin this far after those of the stage before."""


@dataclass(frozen=True, slots=True)
class Cascade(Policy):
    """`cascade((policy, policy, ...), shares=(...))`: run policies one after another.

    All of them know the best answer so far, from which `neighbours` goes on; the first stage does
    exactly as it would alone. A stage that has spent its share of the forwards that the search may
    spend is asked for no more work; what it has asked for is still done.

    stages: policies, or their spec strings
    shares: of the budget for each stage but the last one, which has the rest (empty: each stage
        goes on to its own end, as it does without a budget)
    """

    stages: tuple[Any, ...] = ("best_of(4)", "neighbours")
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.stages:
            raise InvalidRequest("search", "a cascade must have at least one stage")
        if self.shares and len(self.shares) != len(self.stages) - 1:
            rule = f"must be one for each of the first {len(self.stages) - 1} stages"
            raise InvalidRequest("shares", f"{rule}, got {shown(self.shares)}")
        for share in self.shares:
            require_number("shares", share, low=0.0, high=1.0)

    def resolve(self, parse: Callable[[Any], Policy]) -> Policy:
        """See `Policy`."""
        return replace(self, stages=tuple(map(parse, self.stages)))

    @property
    def diverse(self) -> bool:
        """See `Policy`."""
        return any(stage.diverse for stage in self.stages)

    def judge(self, given: Verifier | None) -> Verifier | None:
        """See `Policy`: all stages have one verifier."""
        for stage in self.stages:
            given = stage.judge(given)
        return given

    def run(self, search: Context) -> Run:
        """See `Policy`."""
        whole = search.left
        for number, stage in enumerate(self.stages):
            share = self.shares[number] if number < len(self.shares) else inf
            part = Part(search, number, whole * share if share else 0.0)
            yield from _all_moved(run_of(stage, part), part)
            if search.settled:
                break
        return search.best


class Part:
    """The facts that a stage may ask for: those of the search, with a bound of its own.

    edges: number that its edges begin at
    """

    def __init__(self, search: Context, number: int, most: float) -> None:
        self._search, self._number, self._most, self._begun = search, number, most, search.left
        self.edges = number * APART

    def __getattr__(self, name: str) -> Any:
        return getattr(self._search, name)

    @property
    def left(self) -> float:
        """Forwards that the stage may still spend."""
        left = self._search.left
        return left if left == inf else max(min(left, self._most - (self._begun - left)), 0.0)

    def rng(self, *key: int | str) -> Random:
        """Random numbers of the stage."""
        return self._search.rng(*([self._number] if self._number else []), *key)


def _moved(item: Any, part: Part) -> Any:
    """A work item of a stage, or a generator of such items, with the edges of the stage."""
    if isinstance(item, GeneratorType):
        return _all_moved(item, part)
    return replace(item, edge=item.edge + part.edges) if isinstance(item, Start | Branch) else item


def _all_moved(run: Run, part: Part) -> Run:
    """The work of a stage, with its edges, as long as it may spend anything."""
    results = None
    with closing(run):
        while part.left:
            try:
                items = run.send(results)  # type: ignore[arg-type]  # the first is None
            except StopIteration as end:
                return end.value
            results = yield [_moved(item, part) for item in items]


@dataclass(frozen=True, slots=True)
class Rollover(Policy):
    """`rollover(quota=...)`: fill the canvas part by part, and try each part again until its draft
    is better than the best draft so far; tries that are not used roll over to the next part.

    Rollover budget forcing (arXiv 2503.19385, algorithm 1), with parts of the canvas for the steps
    of the flow. A state is judged by the draft of its last step, which takes no forward. Where no
    try of a part is better, the best of them is taken, and the score to beat stays.

    starts: rows from the prompt, the best of which is gone on with after their first part
    quota: tries of a part, beside those that were left over from the part before
    segments: parts of the answer, by the share that is open (0: blocks)
    """

    starts: int = 4
    quota: int = 2
    segments: int = 4

    tier = "T2"

    def __post_init__(self) -> None:
        for name in ("starts", "quota"):
            require_integer(name, getattr(self, name), 1)
        require_integer("segments", self.segments, 0)

    def run(self, search: Context) -> Run:
        """See `Policy`."""
        nodes: list[SearchNode] = yield [Start(edge) for edge in range(self.starts)]
        yield [Advance(node, cut(self.segments, 0)) for node in nodes]
        scores = yield from _promise(nodes)
        best = max(scores)
        node = nodes[scores.index(best)]
        yield [Drop(other) for other in nodes if other is not node]
        quota = self.quota
        for number in count(1):
            if node.done:
                break
            parent = node
            node, score, tries = yield from self._tried(parent, number, quota, best)
            yield [Drop(parent)]
            quota = self.quota + quota - tries
            best = max(best, score)
        return search.best

    def _tried(self, parent: SearchNode, number: int, quota: int, best: float) -> Run:
        """The first child that promises more than `best`, else the best of `quota`: the node, its
        score and the tries that it took.
        """
        tried: list[tuple[SearchNode, float]] = []
        while len(tried) < quota and not (tried and tried[-1][1] > best):
            (child,) = yield [Branch(parent, len(tried))]
            yield [Advance(child, cut(self.segments, number))]
            (score,) = yield from _promise([child])
            tried.append((child, score))
        chosen, score = max(tried, key=lambda one: one[1])
        yield [Drop(child) for child, _ in tried if child is not chosen]
        return chosen, score, len(tried)


def _promise(nodes: Sequence[SearchNode]) -> Run:
    """The scores of the answers of nodes, or of their drafts."""
    drafts = yield [Complete(node) for node in nodes]
    judged = yield [
        Score([node], [draft], keep=node.done) for node, draft in zip(nodes, drafts, strict=True)
    ]
    return [candidate.score for (candidate,) in judged]
