"""`Jury`: asks the verifier of a search, keeps the candidates and knows the best of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import inf, isnan
from typing import cast

from dlm.engine.generation import Generation
from dlm.engine.searching import Candidate, Improvement
from dlm.search.executor import Finished, Task
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

    candidates: all finished answers, in the order in which they were judged; of a verifier that
        compares them, with their scores among all of them
    best: the one with the highest score; of equals the first
    curve: the best against the forwards spent
    asked: times that the thread of the verifier was asked
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
        self._thread: ThreadPoolExecutor | None = None
        self._waits: set[Future[Sequence[Verdict]]] = set()
        self.asked = 0
        self._verdicts: list[Verdict] = []
        self._nodes: list[Hypothesis] = []
        self.candidates: list[Candidate] = []
        self.fresh: list[Candidate] = []
        self.curve: list[Improvement] = []
        self.best: Candidate | None = None

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

    def __call__(self, item: Score) -> Task:
        """Begin to judge answers."""
        nodes = cast(Sequence[Hypothesis], item.nodes)  # the executor made them
        answers = item.answers or [node.row.result() for node in nodes]

        def finish(verdicts: Sequence[Verdict]) -> list[Candidate]:
            return self._judged(nodes, answers, verdicts, keep=item.keep)

        if self._verifier is None:
            return Finished(finish([Verdict(float("nan"))] * len(answers)))
        if not any(one.blocks for one in whole(self._verifier)):
            return Finished(finish(self._ask(answers)))
        self._thread = self._thread or ThreadPoolExecutor(1, "dlm-verify")
        self.asked += 1
        verdicts = self._thread.submit(self._ask, answers)
        self._waits.add(verdicts)
        verdicts.add_done_callback(self._told)
        return Asking(verdicts, finish)

    def wait(self, seconds: float | None) -> None:
        """Wait for the first verdicts that are asked for."""
        for verdicts in list(self._waits)[:1]:
            verdicts.exception(seconds)

    def close(self) -> None:
        """Ask nothing more."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def keep(self, node: Hypothesis, answer: Generation) -> Candidate:
        """An answer that nobody judges."""
        return self._judged([node], [answer], [Verdict(float("nan"))], keep=True)[0]

    def _told(self, verdicts: Future[Sequence[Verdict]]) -> None:
        self._waits.discard(verdicts)
        self._wake()

    def _ask(self, answers: Sequence[Generation]) -> Sequence[Verdict]:
        """The verdicts; each answer counts as a call."""
        assert self._verifier is not None
        self._question.spent.add(calls=len(answers))
        return ask(self._verifier, answers, self._question)

    def _judged(
        self,
        nodes: Sequence[Hypothesis],
        answers: Sequence[Generation],
        verdicts: Sequence[Verdict],
        *,
        keep: bool,
    ) -> list[Candidate]:
        """Candidates with these verdicts; those that are kept may change the best."""
        before, nfe = len(self.candidates), self._spent()
        made = list[Candidate]()
        for node, answer, (score, feedback, spans, _) in zip(nodes, answers, verdicts, strict=True):
            number = before + (len(made) if keep else 0)
            made.append(Candidate(number, node.number, answer, score, feedback, spans, nfe))
        judged = [*self._verdicts, *verdicts]
        candidates = self._compared([*self.candidates, *made], judged)
        if keep:
            self.candidates, self._verdicts = candidates, judged
            self.fresh += candidates[before:]
            self._nodes += nodes
            for node, candidate in zip(self._nodes, candidates, strict=True):
                node.score = candidate.score
            self._choose(nfe)
        return candidates[before:]

    def _compared(
        self, candidates: list[Candidate], verdicts: Sequence[Verdict]
    ) -> list[Candidate]:
        """The candidates with their scores among each other, where the verifier compares them."""
        if self._verifier is None or not self._verifier.relative:
            return candidates
        scores: Sequence[float] = [-inf] * len(candidates)
        with self._question.spent.guarded():
            scores = self._verifier.compare([one.answer for one in candidates], verdicts)
        return [
            replace(one, score=-inf if isnan(score) else score)
            for one, score in zip(candidates, scores, strict=True)
        ]

    def _choose(self, nfe: float) -> None:
        """Note the best candidate, and tell when it is another one."""
        best = max(self.candidates, key=lambda one: (not isnan(one.score), one.score))
        improved = self.best is None or best.number != self.best.number
        self.best = best
        if improved:
            point = Improvement(nfe, best.score, best.text, best.number)
            self.curve.append(point)
            if self._on_improve is not None:
                self._on_improve(point)
