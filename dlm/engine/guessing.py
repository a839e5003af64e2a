"""The likeliest answers of a parked row, by the distributions of its last step."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from itertools import islice
from math import fsum, inf, log
from typing import Final

from dlm.config.checks import require_integer
from dlm.core import Kind
from dlm.decode.top import Draft
from dlm.engine.completing import filled
from dlm.engine.generation import Generation
from dlm.engine.node import Holder, Node, require_rest
from dlm.errors import InvalidRequest

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
    known: dict[tuple[int, ...], dict[int, Draft]] = {}
    barred = Barred(without)
    for filling in islice(_fillings(options), LOOKED_AT * count):
        shown = _answer(node, filling)
        if shown not in known and not barred.holds(shown):
            known[shown] = filling
        if len(known) == count:
            break
    return [filled(engine, node, filling) for filling in known.values()]


class Barred:
    """Beginnings of answers that are left out."""

    def __init__(self, beginnings: Collection[tuple[int, ...]]) -> None:
        self._beginnings = frozenset(beginnings)
        self._lengths = sorted(set(map(len, self._beginnings)))

    def holds(self, ids: tuple[int, ...]) -> bool:
        """True if an answer begins with one of them."""
        return any(ids[:length] in self._beginnings for length in self._lengths)


def _answer(node: Node, filling: Mapping[int, Draft]) -> tuple[int, ...]:
    """The ids of the answer with these at open positions, up to the first end id, this included,
    or the first position that is open still.
    """
    state, answer = node._state, list[int]()
    for at in range(len(state.prompt), len(state.canvas.ids)):
        if at in filling:
            answer.append(filling[at].id)
        elif state.canvas.kinds[at] > Kind.COMMITTED:
            break
        else:
            answer.append(state.canvas.ids[at])
        if answer[-1] in node.end_ids:
            break
    return tuple(answer)


def _fillings(options: Mapping[int, Sequence[tuple[int, float]]]) -> Iterator[dict[int, Draft]]:
    """Fillings of positions with the ids that they have with probabilities, the likeliest first."""
    places = list(options)
    logs = [[log(max(prob, TINY)) for _, prob in options[at]] for at in places]
    for ranks in likeliest(logs):
        yield {at: Draft(*options[at][rank]) for at, rank in zip(places, ranks, strict=True)}


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
