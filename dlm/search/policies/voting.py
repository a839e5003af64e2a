"""Votes on the short answer: of independent texts, of block sizes, of the steps of one row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import exp
from typing import Any

from dlm.config.checks import require_integer, require_number
from dlm.engine.generation import Generation
from dlm.errors import InvalidRequest
from dlm.search.extract import Extractor
from dlm.search.extract import extract as extractor_of
from dlm.search.names import called
from dlm.search.policy import Context, Policy, finish
from dlm.search.verifier import Verifier
from dlm.search.verifiers.majority import Majority
from dlm.search.work import Advance, Complete, Drop, Point, Run, Score, Start

SHARES = (32, 16, 8, 4, 2)
"""The canvas has this many blocks by default, for one expert each."""


@dataclass(frozen=True, slots=True)
class Vote(Policy):
    """`vote(n)`: decode n answers; the one that most texts come to wins (of equals the first).

    Self-consistency (Wang et al., arXiv 2203.11171), with the result of all n at the cost of fewer:
    answers are decoded side by side, as many as must be there before the winner can be certain, and
    no more once no other answer can win. A text without an answer has no vote. A candidate's score
    is its share of the votes so far.

    n: answers; answer j draws as choice j of `generate(n=...)`
    extract: the short answer of a text: a name in `dlm.search.extract`, or a function
    weigh: a vote counts `exp(score)` of the verifier that is given; then all n are decoded
    """

    n: int = 16
    extract: Any = "auto"
    weigh: bool = False

    tier = "T2"
    judges = False

    def __post_init__(self) -> None:
        require_integer("n", self.n, 1)
        extractor_of(self.extract)

    def judge(self, given: Verifier | None) -> Verifier:
        """See `Policy`."""
        return majority_of("vote", self.extract, given, weigh=self.weigh)

    def run(self, search: Context) -> Run:
        """See `Policy`."""
        starts = [Start(edge) for edge in range(self.n)]
        return (yield from poll(search, starts, self.extract, to_the_end=self.weigh))


@dataclass(frozen=True, slots=True)
class Hex(Policy):
    """`hex(blocks)`: decode the prompt with several block sizes; the answer that most of them come
    to wins (of equals that of the smallest block).

    Hidden semi-autoregressive experts (HEX, arXiv 2510.05040, algorithm 1): the block size changes
    the order of filling, so one model gives several experts, even at temperature 0. It stops as
    `vote` does. The reference has two tokens a step and low confidence as rules; here they are
    those of the request.

    blocks: block sizes in ascending order (empty: 1/32, 1/16, 1/8, 1/4, 1/2 of the canvas)
    seeds: answers of each block size; more than one needs a temperature
    extract, weigh: as in `vote`
    """

    blocks: tuple[int, ...] = ()
    seeds: int = 1
    extract: Any = "auto"
    weigh: bool = False

    tier = "T2"
    judges = False

    def __post_init__(self) -> None:
        for size in self.blocks:
            require_integer("blocks", size, 1)
        require_integer("seeds", self.seeds, 1)
        extractor_of(self.extract)

    @property
    def diverse(self) -> bool:
        """See `Policy`."""
        return self.seeds > 1

    def judge(self, given: Verifier | None) -> Verifier:
        """See `Policy`."""
        return majority_of("hex", self.extract, given, weigh=self.weigh)

    def run(self, search: Context) -> Run:
        """See `Policy`."""
        blocks = self.blocks
        if not blocks:
            (empty,) = yield [Start(0)]
            blocks = tuple(sorted({max(len(empty.open) // share, 1) for share in SHARES}))
            yield [Drop(empty)]
        sizes = list(blocks) * self.seeds
        starts = [Start(edge, {"blocks": f"fixed({size})"}) for edge, size in enumerate(sizes)]
        return (yield from poll(search, starts, self.extract, to_the_end=self.weigh))


@dataclass(frozen=True, slots=True)
class TemporalVote(Policy):
    """`temporal_vote(alpha)`: decode one answer; the steps vote on it by their drafts.

    Temporal self-consistency voting (arXiv 2508.09138): right answers often come up on the way and
    are lost again. The draft of a step, with the tokens that it drew where it left positions open,
    votes with the weight `exp(alpha * step / steps)`; a draft without an answer does not vote. It
    costs no forward more than the answer itself. Where another answer than the last one wins, its
    latest draft is given. A step reads the blocks that are open alone, so `blocks="whole"` has the
    most voters.

    alpha: growth of the weights towards the end (0: all count the same)
    every: steps between two votes
    extract: as in `vote`
    """

    alpha: float = 5.0
    every: int = 1
    extract: Any = "auto"

    tier = "T3"
    judges = False
    diverse = False
    reads_text = True

    def __post_init__(self) -> None:
        require_number("alpha", self.alpha, low=0.0, high=100.0)
        require_integer("every", self.every, 1)
        extractor_of(self.extract)

    def run(self, search: Context) -> Run:
        """See `Policy`."""
        (node,) = yield [Start(0)]
        drafts: list[tuple[int, Generation]] = []
        while not node.done:
            yield [Advance(node, Point(steps=self.every))]
            (draft,) = yield [Complete(node)]
            drafts.append((node.nfe, draft))
        ((last,),) = yield [Score([node])]
        chosen = self._elected(drafts)
        if chosen is drafts[-1][1]:
            return last
        ((other,),) = yield [Score([node], [chosen])]
        return other

    def _elected(self, drafts: Sequence[tuple[int, Generation]]) -> Generation:
        """The latest draft of the answer with the most weight; of equals the later one."""
        extract, steps = extractor_of(self.extract), drafts[-1][0]
        weights: dict[str, float] = {}
        latest: dict[str, Generation] = {}
        for step, draft in drafts:
            if (found := _answer_of(extract, draft.text)) is not None:
                weight = exp(self.alpha * (step / steps - 1))
                latest.pop(found, None)  # the latest comes last
                weights[found], latest[found] = weights.get(found, 0.0) + weight, draft
        if not latest:
            return drafts[-1][1]
        return latest[max(reversed(latest), key=weights.__getitem__)]


def majority_of(name: str, extract: Any, given: Verifier | None, *, weigh: bool) -> Verifier:
    """The verifier of a policy that votes. Raises `InvalidRequest` for one that is of no use."""
    if given is not None and not weigh:
        rule = f"is of no use to {name}, where the answers vote: take `weigh=True` to weigh them"
        raise InvalidRequest("verifier", f"{called(given)} {rule}")
    if given is None and weigh:
        raise InvalidRequest("verifier", f"must be given: {name} weighs votes by its scores")
    return Majority(extract, given or "")


def poll(search: Context, starts: Sequence[Start], extract: Any, *, to_the_end: bool) -> Run:
    """Decode answers until no other one can win, or `to_the_end`; returns the winning candidate."""
    rule, found = extractor_of(extract), list[str | None]()
    while more := len(starts) - len(found) if to_the_end else undecided(found, len(starts)):
        fresh = starts[len(found) : len(found) + more]
        candidates = yield [_decoded(start) for start in fresh]
        found += [_answer_of(rule, candidate.text) for candidate in candidates]
    return search.best


def undecided(found: Sequence[str | None], n: int) -> int:
    """Votes that must still be there, at least, before the winner among n is certain.

    0: no other answer can win. Of equals the one that was there first wins.
    """
    votes = list(Counter(one for one in found if one is not None).values())  # by the first one
    leader = max(range(len(votes)), key=votes.__getitem__, default=0)
    lead = max(votes, default=0) - (n - len(found))
    ahead = [own + (at < leader) for at, own in enumerate(votes) if at != leader]
    needed = max(ahead, default=0) - lead  # by two votes for the leader and none for the rest
    return max(needed + 1, 0) // 2


def _decoded(start: Start) -> Run:
    """Decode one answer and judge it; returns the candidate."""
    (node,) = yield [start]
    return (yield from finish(node))


def _answer_of(extract: Extractor, text: str | None) -> str | None:
    """The short answer of a text; None where it has none, or a user's function fails on it."""
    with suppress(Exception):
        return extract(text or "")
    return None
