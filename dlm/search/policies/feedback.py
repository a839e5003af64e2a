"""Feedback: the verifier's words go into the prompt, and the tokens it points to are redone."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from dlm.config.checks import require_integer, require_number
from dlm.engine.searching import Candidate
from dlm.search.policy import Context, Policy, finish_watched
from dlm.search.selectors import Blamed, Pivot
from dlm.search.work import Run, SearchNode, Start


@dataclass(frozen=True, slots=True)
class Feedback(Policy):
    """`feedback(rounds, ...)`: decode an answer; tell the model what is wrong with it, open the
    part that the verifier points to, and decode that anew; the best answer is corrected next.

    The idea of Reflect-DiT (arXiv 2503.12271), which conditions on an earlier answer and a critique
    of it, in text: the rest of the answer stays where it is, and only the words come into the
    prompt. A model that was not trained to be corrected may be confused by them (`words=False`).

    rounds: corrections
    fraction: share of the answer that is opened at least, by chance where nothing is pointed to
    words: put the verifier's words after the prompt, which must be a text or messages
    tail: positions of the end of the text that may be opened too
    """

    rounds: int = 16
    fraction: float = 0.5
    words: bool = True
    tail: int = 3

    def __post_init__(self) -> None:
        require_integer("rounds", self.rounds, 1)
        require_integer("tail", self.tail, 0)
        require_number("fraction", self.fraction, low=0.01, high=1.0)

    def run(self, search: Context) -> Run:
        """See `Policy`."""
        (node,) = yield [Start(0)]
        best = yield from finish_watched(search, node)
        for edge in range(1, self.rounds + 1):
            if search.settled:
                break
            (fresh,) = yield [self._corrected(search, node, best, edge)]
            candidate = yield from finish_watched(search, fresh)
            if candidate.score >= best.score:
                node, best = fresh, candidate
        return search.best

    def _corrected(self, search: Context, node: SearchNode, judged: Candidate, edge: int) -> Start:
        """A row that begins with an answer, open at some positions, and words on it."""
        places = node.written + node.tail[: self.tail]
        pivot = Pivot(node, judged, places, search.rng("feedback", edge))
        blamed = sum(end - start for start, end in judged.spans)
        count = min(max(blamed, ceil(self.fraction * len(places))), len(places))
        opened = set(Blamed().rank(pivot, count)[:count]) | set(node.open)
        start = len(judged.answer.prompt_ids)
        canvas = [
            None if at in opened else token for at, token in enumerate(node.ids[start:], start)
        ]
        return Start(edge, canvas=canvas, feedback=judged.feedback if self.words else "")
