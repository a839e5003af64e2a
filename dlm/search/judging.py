"""`Jury`: asks the verifier of a search, keeps the candidates and knows the best of them."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from math import inf, isnan
from threading import TIMEOUT_MAX
from typing import cast

from dlm.engine.generation import Generation
from dlm.engine.searching import Candidate, Improvement
from dlm.search.executor import Finished, Task
from dlm.search.frames import Place
from dlm.search.nodes import Hypothesis
from dlm.search.verifier import Question, Verdict, Verifier, ask, whole
from dlm.search.work import Score


@dataclass(slots=True)
class Asking:
    """Answers that a verifier judges in another thread.

    verdicts: its verdicts, when they are there
    finish: makes candidates of them
    """

    verdicts: Future[Sequence[Verdict]]
    finish: Callable[[Sequence[Verdict]], list[Candidate]]

    @property
    def ready(self) -> bool:
        """True if the verdicts are there."""
        return self.verdicts.done()

    def result(self) -> list[Candidate]:
        """The candidates."""
        return self.finish(self.verdicts.result())


class Jury:
    """Judges the answers of one search.

    best: the candidate with the highest score; of equals the first
    curve: the best against the forwards spent
    fresh: candidates that nobody has been told of
    """

    def __init__(
        self,
        verifier: Verifier | None,
        question: Question,
        target: float | None,
        spent: Callable[[], float],
        on_improve: Callable[[Improvement], object] | None,
        wake: Callable[[], object],
    ) -> None:
        self._verifier, self._question, self._spent = verifier, question, spent
        self._on_improve, self._wake = on_improve, wake
        highest = inf if verifier is None else verifier.highest
        self.target = highest if target is None else min(target, highest)
        self._threads: ThreadPoolExecutor | None = None
        self._waits: set[Future[Sequence[Verdict]]] = set()
        self._verdicts: list[Verdict] = []
        self._nodes: list[Hypothesis] = []
        self._places: list[Place] = []
        self._judged: list[Candidate] = []
        self._order: list[int] = []
        self.fresh: list[Candidate] = []
        self.curve: list[Improvement] = []
        self.best: Candidate | None = None

    @property
    def candidates(self) -> list[Candidate]:
        """All finished answers, in the order of their places, with their scores among all of them
        where the verifier compares them.
        """
        return [self._judged[number] for number in self._order]

    @property
    def free(self) -> bool:
        """True if verdicts take no forwards and are there at once."""
        if self._verifier is None or any(one.blocks for one in whole(self._verifier)):
            return False
        return not any(one.cost for one in whole(self._verifier))

    @property
    def settled(self) -> bool:
        """True if the best score is the target, or the highest that there is."""
        return self.best is not None and self.best.score >= self.target

    @property
    def waits(self) -> bool:
        """True if a verdict is awaited from another thread."""
        return bool(self._waits)

    def __call__(self, item: Score, place: Place) -> Task:
        """Begin to judge answers; of equals the one with the smaller place is the better."""
        nodes = cast(Sequence[Hypothesis], item.nodes)  # the executor made them
        answers = item.answers or [node.row.result() for node in nodes]

        def finish(verdicts: Sequence[Verdict]) -> list[Candidate]:
            return self._made(nodes, answers, verdicts, place if item.keep else None)

        if self._verifier is None:
            return Finished(finish([Verdict(float("nan"))] * len(answers)))
        if not any(one.blocks for one in whole(self._verifier)):
            return Finished(finish(self._ask(answers)))
        self._threads = self._threads or ThreadPoolExecutor(self._verifier.workers, "dlm-verify")
        verdicts = self._threads.submit(self._ask, answers)
        self._waits.add(verdicts)
        verdicts.add_done_callback(self._told)
        return Asking(verdicts, finish)

    def wait(self, seconds: float) -> None:
        """Wait for the first verdicts that are asked for."""
        most = None if seconds == inf else min(seconds, TIMEOUT_MAX)
        wait(list(self._waits), most, FIRST_COMPLETED)

    def close(self) -> None:
        """Ask nothing more."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def keep(self, node: Hypothesis, answer: Generation) -> Candidate:
        """An answer that nobody judges."""
        return self._made([node], [answer], [Verdict(float("nan"))], ())[0]

    def _told(self, verdicts: Future[Sequence[Verdict]]) -> None:
        self._waits.discard(verdicts)
        self._wake()

    def _ask(self, answers: Sequence[Generation]) -> Sequence[Verdict]:
        """The verdicts; each answer counts as a call."""
        assert self._verifier is not None
        self._question.spent.add(calls=len(answers))
        return ask(self._verifier, answers, self._question)

    def _made(
        self,
        nodes: Sequence[Hypothesis],
        answers: Sequence[Generation],
        verdicts: Sequence[Verdict],
        place: Place | None,
    ) -> list[Candidate]:
        """Candidates with these verdicts; those that are kept, at a place, may change the best."""
        before, nfe = len(self._judged), self._spent()
        numbers = range(before, before + len(answers))
        made = [
            Candidate(before if place is None else number, node.number, answer, *verdict[:3], nfe)
            for number, node, answer, verdict in zip(numbers, nodes, answers, verdicts, strict=True)
        ]
        judged = [*self._verdicts, *verdicts]
        candidates = self._compared([*self._judged, *made], judged)
        if place is not None:
            self._judged, self._verdicts = candidates, judged
            self.fresh += candidates[before:]
            self._nodes += nodes
            for number in numbers:
                self._places.append((*place, number - before))
                insort(self._order, number, key=self._places.__getitem__)
            self._choose(numbers, nfe)
        return candidates[before:]

    def _compared(
        self, candidates: list[Candidate], verdicts: Sequence[Verdict]
    ) -> list[Candidate]:
        """The candidates with their scores among each other, where the verifier compares them."""
        if self._verifier is None or not self._verifier.relative:
            return candidates
        judged = [at for at, verdict in enumerate(verdicts) if not isnan(verdict.score)]
        scores: Sequence[float] = [-inf] * len(judged)
        with self._question.spent.guarded():
            answers = [candidates[at].answer for at in judged]
            scores = self._verifier.compare(answers, [verdicts[at] for at in judged])
        found = list(candidates)  # those that nobody judged stay as they are
        for at, score in zip(judged, scores, strict=True):
            found[at] = replace(found[at], score=-inf if isnan(score) else score)
        return found

    def _choose(self, fresh: Sequence[int], nfe: float) -> None:
        """Note the best candidate after those of some numbers came, and tell when it is another."""
        changed: Sequence[int] = fresh
        if self._verifier is not None and self._verifier.relative:
            changed = self._order
        for number in changed:
            self._nodes[number].score = self._judged[number].score
        known = {*changed} if self.best is None else {self.best.number, *changed}
        in_order = sorted(known, key=self._places.__getitem__)
        best = max((self._judged[number] for number in in_order), key=_rank)
        improved = self.best is None or best.number != self.best.number
        self.best = best
        if improved:
            point = Improvement(nfe, best.score, best.text, best.number)
            self.curve.append(point)
            if self._on_improve is not None:
                self._on_improve(point)


def _rank(candidate: Candidate) -> tuple[bool, float]:
    """The rank of a candidate: of one that was not judged the last."""
    return not isnan(candidate.score), candidate.score
