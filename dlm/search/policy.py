"""`Policy`, the base of the ways to search, and `Context`, the facts that a policy may ask for."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from math import inf
from random import Random
from typing import Any, ClassVar, Protocol

from dlm.engine.searching import Candidate
from dlm.search.verifier import Verifier
from dlm.search.work import Advance, Complete, Point, Run, Score, SearchNode, Start


class Context(Protocol):
    """The facts that a policy may ask for while it runs.

    They tell of all that is there already. Among generators that run side by side that depends on
    the batch: these decide by what they were given, and by what their own work results in.
    """

    @property
    def best(self) -> Candidate | None:
        """The answer with the highest score so far; of equals the first."""
        ...

    @property
    def candidates(self) -> Sequence[Candidate]:
        """All answers so far, in the order of the work that asked for them."""
        ...

    @property
    def settled(self) -> bool:
        """True if the best score is the target, or the highest that there is."""
        ...

    @property
    def target(self) -> float:
        """The score that settles the search; infinite where none does."""
        ...

    @property
    def free(self) -> bool:
        """True if verdicts take no forwards and are there at once."""
        ...

    @property
    def left(self) -> float:
        """Forwards that this search, or this part of it, may still spend; infinite without a
        budget.
        """
        ...

    def rng(self, *key: int | str) -> Random:
        """Random numbers of the search's seed; the same key gives the same ones."""
        ...

    def node(self, candidate: Candidate) -> SearchNode:
        """The node that a candidate is the answer of."""
        ...


class Policy:
    """A way to search: a frozen dataclass of plain values.

    tier: how well it is proved, `T1` to `T3`
    judges: it needs scores (`confidence` where no verifier is given)
    diverse: it needs answers that differ, so the request must draw at random
    reads_text: it reads answers as texts, so the model must have a tokenizer
    """

    __slots__ = ()

    tier: ClassVar[str] = "own rule"
    judges: ClassVar[bool] = True
    reads_text: ClassVar[bool] = False

    @property
    def diverse(self) -> bool:
        """True if the request must draw at random."""
        return True

    def resolve(self, parse: Callable[[Any], Policy]) -> Policy:
        """The same with policies within it that are parsed from what the user gave; by default it
        has none.
        """
        return self

    def judge(self, given: Verifier | None) -> Verifier | None:
        """The verifier of its searches, where a user has given this one; by default that one.

        Raises `InvalidRequest` for one that it has no use for.
        """
        return given

    @abstractmethod
    def run(self, search: Context) -> Run:
        """The work of the search; it returns its answer, a `Candidate`, or None for the best."""


def rng_of(seed: int, key: Sequence[int | str]) -> Random:
    """Random numbers that depend on `seed` and `key` alone."""
    digest = hashlib.blake2b(repr((seed, *key)).encode(), digest_size=16).digest()
    return Random(int.from_bytes(digest))


def sample(edge: int) -> Run:
    """Decode one answer from the prompt and judge it; returns its node and candidate."""
    (node,) = yield [Start(edge)]
    yield [Advance(node)]
    ((candidate,),) = yield [Score([node])]
    return node, candidate


def finish(node: SearchNode) -> Run:
    """Decode a node to its end and judge the answer; returns the candidate."""
    yield [Advance(node)]
    ((candidate,),) = yield [Score([node])]
    return candidate


def finish_watched(search: Context, node: SearchNode) -> Run:
    """Decode a node to its end and judge the answer; returns the candidate.

    Where verdicts are free and one can settle the search, each step's draft is judged on the way:
    the tokens that the step drew for the positions it left open.
    """
    while search.free and search.target < inf and not node.done:
        yield [Advance(node, Point(steps=1))]
        if not node.done:
            guess = yield from judged(search, node)
            if guess.score >= search.target:
                return guess
    return (yield from finish(node))


def judged(search: Context, node: SearchNode) -> Run:
    """Judge the answer of a node, or its draft where it has not ended; returns the candidate.

    Of drafts only one that settles the search becomes a candidate of it.
    """
    if node.done:
        ((candidate,),) = yield [Score([node])]
        return candidate
    (draft,) = yield [Complete(node)]
    ((guess,),) = yield [Score([node], [draft], keep=False)]
    if guess.score >= search.target:
        ((guess,),) = yield [Score([node], [draft])]
    return guess
