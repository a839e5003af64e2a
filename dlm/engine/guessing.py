"""The likeliest answers of a parked row, by the distributions of its last step."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from itertools import islice
from math import fsum, inf, log
from typing import Final, TypeAlias

from dlm.config.checks import require_integer
from dlm.core import Kind
from dlm.decode.top import Draft
from dlm.engine.completing import filled
from dlm.engine.generation import Generation
from dlm.engine.node import Holder, Node, require_rest
from dlm.errors import InvalidRequest

Options: TypeAlias = Mapping[int, Sequence[tuple[int, float]]]
"""The likely ids of each position, with their probabilities, in descending order."""
TINY: Final = 1e-38
"""The least probability that has a logarithm here."""
LOOKED_AT: Final = 64
"""Fillings that are looked at for each one wanted, as some of them are left out."""


def guesses(
    engine: Holder, node: Node, count: int, without: Collection[tuple[int, ...]] = ()
) -> list[Generation]:
    """See `Engine.guesses`."""
    require_integer("count", count, 1)
    require_rest(node)
    if node.done:
        return [node.result()]
    if node._state.likely < 2:
        rule = "must be at least 2 for a node whose likeliest answers are asked for"
        raise InvalidRequest("top_logprobs", f"{rule}, got {node._state.likely}")
    drawn = engine.scheduler.draft(node._state)
    options = {at: drawn[at].top for at in node.open if at in drawn}
    if not options:  # that step has filled all that it read
        return [node.result()]
    shape, barred = Shape(node, list(options)), Barred(without)
    logs = [[log(max(prob, TINY)) for _, prob in likely] for likely in options.values()]
    chosen: dict[tuple[int, ...], tuple[int, ...]] = {}
    for ranks in islice(likeliest(logs), LOOKED_AT * count):
        answer = shape.filled([own[at][0] for own, at in zip(options.values(), ranks, strict=True)])
        if answer not in chosen and not barred.holds(answer):
            chosen[answer] = ranks
        if len(chosen) == count:
            break
    return [filled(engine, node, _drafts(options, ranks)) for ranks in chosen.values()]


def _drafts(options: Options, ranks: Sequence[int]) -> dict[int, Draft]:
    """The token of each position that has a rank there."""
    return {at: Draft(*own[rank]) for (at, own), rank in zip(options.items(), ranks, strict=True)}


class Barred:
    """Beginnings of answers that are left out."""

    def __init__(self, beginnings: Collection[tuple[int, ...]]) -> None:
        self._beginnings = frozenset(beginnings)
        self._lengths = sorted(set(map(len, self._beginnings)))

    def holds(self, ids: tuple[int, ...]) -> bool:
        """True if an answer begins with one of them."""
        return any(ids[:length] in self._beginnings for length in self._lengths)


class Shape:
    """The answer of a row, in which some positions are to be filled.

    It reaches up to the first open position that is not to be filled, or to the end of the canvas.
    """

    def __init__(self, node: Node, places: Sequence[int]) -> None:
        first, kinds = len(node._state.prompt), node.kinds
        filled_in, self._ends = set(places), node.end_ids
        last = range(first, len(kinds))
        still = (at for at in last if kinds[at] > Kind.COMMITTED and at not in filled_in)
        self._ids = list(node.ids[first : next(still, len(kinds))])
        self._places = [at - first for at in places]
        committed = (n for n, token in enumerate(self._ids) if token in self._ends)
        self._end = next((n for n in committed if n + first not in filled_in), len(self._ids))

    def filled(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """The ids with these at the positions, up to the first end id, this included."""
        ids, end = self._ids.copy(), self._end
        for at, token in zip(self._places, tokens, strict=True):
            if at < end:
                ids[at] = token
                if token in self._ends:
                    end = at
        return tuple(ids[: end + 1])


def likeliest(logs: Sequence[Sequence[float]]) -> Iterator[tuple[int, ...]]:
    """One rank for each of several descending lists, the combination with the largest sum first.

    Each combination comes once: after the one whose last rank above 0 is lower by one, where lists
    with a small first gap come first (the k best solutions of Lawler, Management Science 18(7),
    1972, of a problem without constraints).
    """
    order = sorted(range(len(logs)), key=lambda at: logs[at][0] - max(logs[at][1:], default=-inf))
    first = (0,) * len(logs)
    heap = [(-fsum(one[0] for one in logs), first, 0)]
    while heap:
        cost, ranks, place = heappop(heap)
        yield ranks
        for later in range(place, len(order)):
            at = order[later]
            rank = ranks[at] + 1
            if rank < len(logs[at]):
                step = logs[at][rank - 1] - logs[at][rank]
                heappush(heap, (cost + step, (*ranks[:at], rank, *ranks[at + 1 :]), later))
