"""Selectors: the positions of an answer that a neighbour of it is decoded anew at.

A selector is pure: it ranks the places of a `Pivot`, and a policy opens the first of them. One that
reads the answer once more names the positions to hide; `chosen` pays for the forwards.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, isnan
from random import Random
from types import MappingProxyType
from typing import ClassVar, Final

from dlm.config.checks import require_number
from dlm.config.spec_strings import GROUP, parse_with
from dlm.engine.searching import Candidate
from dlm.errors import InvalidRequest
from dlm.registry import Registry
from dlm.search.policy import Context
from dlm.search.work import Reread, Run, SearchNode

SELECTORS: Final = Registry(
    "select",
    {
        "random": "dlm.search.selectors:AtRandom",
        "span": "dlm.search.selectors:Span",
        "lowest": "dlm.search.selectors:Lowest",
        "drop": "dlm.search.selectors:Drop",
        "pll": "dlm.search.selectors:PseudoLikelihood",
        "disagree": "dlm.search.selectors:Disagreement",
        "blamed": "dlm.search.selectors:Blamed",
    },
    GROUP,
)
"""The registered selectors."""


@dataclass(frozen=True, slots=True)
class Pivot:
    """An answer that is to be opened in part.

    node: it
    candidate: its judgement
    places: committed positions that may be opened, in order
    rng: random numbers of this choice
    others: all answers of the search so far
    reread: log-probability by position of the tokens, where a selector had them read again
    """

    node: SearchNode
    candidate: Candidate
    places: tuple[int, ...]
    rng: Random
    others: Sequence[Candidate] = ()
    reread: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))

    def shuffled(self, places: Sequence[int]) -> list[int]:
        """Places in an order by chance."""
        return self.rng.sample(list(places), len(places))

    def first_of(self, chosen: Sequence[int]) -> list[int]:
        """The places among `chosen` first, then the others, both in orders by chance."""
        wanted = set(chosen)
        inside = [at for at in self.places if at in wanted]
        return self.shuffled(inside) + self.shuffled([a for a in self.places if a not in wanted])

    def lowest_first(self, worth: Mapping[int, float]) -> list[int]:
        """Places by a number, the lowest first, those without one last; of equals the first."""
        known = {at: worth[at] for at in self.places if at in worth and not isnan(worth[at])}
        rest = [at for at in self.places if at not in known]
        return sorted(known, key=lambda at: (known[at], at)) + rest


class Selector:
    """A choice of positions: a frozen dataclass of plain values.

    tier: how well it is proved, `T1` to `T3`
    """

    __slots__ = ()

    tier: ClassVar[str] = "own rule"

    def hidden(self, pivot: Pivot) -> list[list[int]]:
        """Positions to mask in each forward that reads the answer again; by default no forward."""
        return []

    @abstractmethod
    def rank(self, pivot: Pivot, count: int) -> Sequence[int]:
        """The places, those to open first at the front; `count` of them will be opened."""


@dataclass(frozen=True, slots=True)
class AtRandom(Selector):
    """`random`: positions by chance, so that each round keeps another part of the answer."""

    def rank(self, pivot: Pivot, count: int) -> Sequence[int]:
        """See `Selector`."""
        return pivot.shuffled(pivot.places)


@dataclass(frozen=True, slots=True)
class Span(Selector):
    """`span`: a stretch of positions that begins at a place by chance."""

    def rank(self, pivot: Pivot, count: int) -> Sequence[int]:
        """See `Selector`."""
        first = pivot.rng.randrange(max(len(pivot.places) - count, 0) + 1)
        return pivot.places[first:] + pivot.places[:first]


@dataclass(frozen=True, slots=True)
class Lowest(Selector):
    """`lowest`: the tokens that were least sure at their commits."""

    def rank(self, pivot: Pivot, count: int) -> Sequence[int]:
        """See `Selector`."""
        return pivot.lowest_first(dict(enumerate(pivot.node.logprobs)))


@dataclass(frozen=True, slots=True)
class Drop(Selector):
    """`drop`: the tokens that have lost most of their confidence since their commits.

    One forward reads the whole answer; the measure is that of Saber (arXiv 2510.18165, the
    backtracking rule), which takes it in every step.
    """

    tier: ClassVar[str] = "T2"

    def hidden(self, pivot: Pivot) -> list[list[int]]:
        """See `Selector`."""
        return [[]]

    def rank(self, pivot: Pivot, count: int) -> Sequence[int]:
        """See `Selector`."""
        at_commit, now = pivot.node.logprobs, pivot.reread
        change = {at: now[at] - at_commit[at] for at in pivot.places if at in now}
        return pivot.lowest_first(change or dict(enumerate(at_commit)))


@dataclass(frozen=True, slots=True)
class PseudoLikelihood(Selector):
    """`pll(rate)`: the tokens that the others make least likely.

    The answer is read with a share of its positions masked, each position in one of the forwards
    (pseudo-log-likelihood, arXiv 1910.14659, with several masks at a time).

    rate: share of the positions that a forward masks
    """

    rate: float = 0.34
    tier: ClassVar[str] = "T2"

    def __post_init__(self) -> None:
        require_number("rate", self.rate, low=0.05, high=1.0)

    def hidden(self, pivot: Pivot) -> list[list[int]]:
        """See `Selector`."""
        forwards, order = ceil(1 / self.rate), pivot.shuffled(pivot.places)
        parts = [sorted(order[first::forwards]) for first in range(forwards)]
        return [part for part in parts if part]

    def rank(self, pivot: Pivot, count: int) -> Sequence[int]:
        """See `Selector`."""
        return pivot.lowest_first(pivot.reread or dict(enumerate(pivot.node.logprobs)))


@dataclass(frozen=True, slots=True)
class Disagreement(Selector):
    """`disagree`: first the positions at which the answer differs from its rival, the best of the
    other answers (of equals the latest).
    """

    def rank(self, pivot: Pivot, count: int) -> Sequence[int]:
        """See `Selector`."""
        mine = pivot.node.ids
        others = [one for one in pivot.others if one.answer.canvas != mine]
        if not others:
            return pivot.shuffled(pivot.places)
        rival = max(others, key=lambda one: (one.score, one.number)).answer.canvas
        return pivot.first_of([at for at in pivot.places if mine[at] != rival[at]])


@dataclass(frozen=True, slots=True)
class Blamed(Selector):
    """`blamed`: first the positions that the verifier points to."""

    def rank(self, pivot: Pivot, count: int) -> Sequence[int]:
        """See `Selector`."""
        spans = pivot.candidate.spans
        return pivot.first_of([at for start, end in spans for at in range(start, end)])


def parse_selector(spec: object) -> Selector:
    """The selector that a spec means: an object, or a spec string with a registered name.

    Raises `InvalidRequest`. Strings import no code of others, as strangers may send them.
    """
    selector = parse_with(SELECTORS, spec, trusted=not isinstance(spec, str))
    if not isinstance(selector, Selector):
        rule = "is no selector: inherit dlm.search.selectors.Selector"
        raise InvalidRequest("select", f"{type(selector).__name__} {rule}")
    return selector


def chosen(search: Context, selector: Selector, pivot: Pivot, count: int) -> Run:
    """The positions to open, `count` at most; forwards that the budget has no room for are left
    out, and the selector then goes by the confidences at the commits.
    """
    patterns = selector.hidden(pivot)
    if patterns and len(patterns) <= search.left:
        read = yield [Reread(pivot.node, hidden) for hidden in patterns]
        known = {
            at: logs[at]
            for hidden, logs in zip(patterns, read, strict=True)
            for at in hidden or pivot.places
        }
        pivot = replace(pivot, reread=MappingProxyType(known))
    return list(selector.rank(pivot, count))[:count]
