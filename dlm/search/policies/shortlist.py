"""Best-first search over the likeliest fillings of half-filled canvases."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from typing import Final

from dlm.config.checks import require_integer
from dlm.engine.generation import Generation
from dlm.engine.searching import Candidate
from dlm.errors import InvalidRequest
from dlm.search.policy import Context, Policy
from dlm.search.verifier import Verifier
from dlm.search.work import Advance, Complete, Drop, Guess, Point, Run, Score, SearchNode, Start

Canvas = tuple[int, ...]
MOST_GUESSES: Final = 256
"""Each guess takes some tenths of a millisecond, in which no row of the engine is decoded."""
MOST_LIKELY: Final = 20
AT_ONCE: Final = 16
"""Fillings that are judged together; those after them leave out what these have shown."""
UNFINISHED: Final = ("draft", "parked")
"""Reasons of answers with open positions."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row to go on with.

    score: of the part of the answer that it has
    left: forwards that it may still take
    """

    node: SearchNode
    score: float
    left: float


@dataclass(slots=True)
class Frontier:
    """Rows to go on with and canvases to begin from, those with the best scores first.

    Of equal scores the likelier filling comes first, and a canvas before a row.
    """

    _queue: list[tuple[float, int, int, Row | Canvas]] = field(default_factory=list)
    _seen: set[Canvas] = field(default_factory=set)
    _order: int = 0

    def __bool__(self) -> bool:
        return bool(self._queue)

    def put(self, entry: Row | Canvas, score: float, rank: int) -> None:
        """Add a row, or a canvas that has not been added before."""
        if isinstance(entry, tuple):
            if entry in self._seen:
                return
            self._seen.add(entry)
        heappush(self._queue, (-score, rank, self._order, entry))
        self._order += 1

    def pop(self) -> tuple[float, Row | Canvas]:
        """Remove the first entry; gives its score and itself."""
        worth, _, _, entry = heappop(self._queue)
        return -worth, entry


@dataclass(frozen=True, slots=True)
class Shortlist(Policy):
    """`shortlist(...)`: judge the likeliest fillings of a canvas after each forward, and go on from
    those that the verifier finds better than the canvas.

    One forward of a masked model tells of every open position, so it holds many answers, and a
    verifier that takes no forwards can look at hundreds. A filling that has come further gives a
    row of its own: it begins with the tokens before the first fault. The row with the best score,
    of equals that of the likeliest filling, is decoded next. The children of one forward are those
    of TReASURe (arXiv 2509.23146, `UnmaskBranch`), where they are drawn; here they are listed in
    the order of their probabilities, as a list decoder does.

    rows: rows at most: the first one begins from the prompt, and another one whenever no part of an
        answer is left to go on from
    guesses: fillings that are judged after a forward
    likely: ids of each position that they are made of
    steps: forwards of a row that begins with a filling
    """

    rows: int = 64
    guesses: int = 64
    likely: int = 8
    steps: int = 1

    def __post_init__(self) -> None:
        require_integer("rows", self.rows, 1)
        require_integer("guesses", self.guesses, 1, MOST_GUESSES)
        require_integer("likely", self.likely, 2, MOST_LIKELY)
        require_integer("steps", self.steps, 1)

    def judge(self, given: Verifier | None) -> Verifier | None:
        """See `Policy`."""
        if given is None or given.cost or given.relative:
            rule = "judges hundreds of guesses: it needs a verifier that takes no forwards"
            raise InvalidRequest("verifier", f"{rule} and compares no answers, such as 'rules'")
        return given

    def run(self, search: Context) -> Run:
        """See `Policy`."""
        waiting, begun = Frontier(), 0
        while not search.settled:
            score, entry = waiting.pop() if waiting else (-inf, ())
            if isinstance(entry, Row):
                yield from self._step(search, waiting, entry)
            elif begun < self.rows:
                yield from self._begin(search, waiting, begun, entry, score)
                begun += 1
            elif not waiting:
                break
        return search.best

    def _begin(
        self, search: Context, waiting: Frontier, edge: int, canvas: Canvas, score: float
    ) -> Run:
        """Take the first step of a row that begins with a canvas of a score."""
        left = self.steps if canvas else inf
        (node,) = yield [Start(edge, canvas=canvas or None, likely=self.likely)]
        (blank,) = yield [Complete(node)]
        ((judged,),) = yield [Score([node], [blank], keep=False)]
        yield from self._step(search, waiting, Row(node, max(score, judged.score), left))

    def _step(self, search: Context, waiting: Frontier, row: Row) -> Run:
        """Take a step of a row; add the fillings that have come further, then the row itself."""
        node, left = row.node, row.left - 1
        yield [Advance(node, Point(steps=1))]
        if node.done:
            yield [Score([node])]
            return
        yield from self._list(search, waiting, row)
        if left:
            waiting.put(Row(node, row.score, left), row.score, self.guesses)
        else:
            yield [Drop(node)]

    def _list(self, search: Context, waiting: Frontier, row: Row) -> Run:
        """Judge the likeliest answers of a row, and add the parts that have come further.

        Answers that begin like one that was judged, up to its last fault, or like a part that was
        added are left out: they would have the same fault, or are found from there.
        """
        barred: set[Canvas] = set()
        for first in range(0, self.guesses, AT_ONCE):
            count = min(AT_ONCE, self.guesses - first)
            found = yield from _guessed(search, row.node, count, barred)
            for rank, (answer, guess) in enumerate(found, first):
                sound, faulty = _parts(answer, guess)
                goes_on = guess.score > row.score and _is_open(answer, sound)
                barred.add(sound if goes_on else faulty)
                if goes_on:
                    waiting.put(sound, guess.score, rank)
            if search.settled or len(found) < count:
                break


def _guessed(search: Context, node: SearchNode, count: int, barred: Collection[Canvas]) -> Run:
    """Judge the likeliest answers of a node; returns them with their judgements.

    The best one without an open position becomes a candidate if it is better than all so far.
    """
    (answers,) = yield [Guess(node, count, frozenset(barred))]
    (found,) = yield [Score([node] * len(answers), answers, keep=False)]
    pairs = list(zip(answers, found, strict=True))
    whole = [pair for pair in pairs if pair[0].finish_reason not in UNFINISHED]
    settling = [pair for pair in pairs if pair[1].score >= search.target]
    best = max(settling or whole, key=lambda pair: pair[1].score, default=None)
    if best is not None and (search.best is None or best[1].score > search.best.score):
        yield [Score([node], [best[0]])]
    return pairs


def _is_open(answer: Generation, sound: Canvas) -> bool:
    """True if the first ids of an answer leave something to be decoded."""
    return bool(sound) and (answer.finish_reason in UNFINISHED or len(sound) < len(answer.ids))


def _parts(answer: Generation, guess: Candidate) -> tuple[Canvas, Canvas]:
    """The ids of an answer before the first position that its verifier points to, and those up to
    the last one. Where it points to none both are the whole answer.
    """
    first, ids = len(answer.prompt_ids), answer.canvas
    written = first + len(answer.ids)
    start = min((one for one, _ in guess.spans), default=written)
    end = max((one for _, one in guess.spans), default=written)
    return ids[first : max(start, first)], ids[first : max(end, first)]
