"""`Jury`: asks the verifier of a search, keeps the candidates and knows the best of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import inf, isnan
from typing import cast

from dlm.engine.generation import Generation
from dlm.engine.searching import Candidate, Improvement
from dlm.search.executor import Finished, Task
from dlm.search.nodes import Hypothesis
from dlm.search.verifier import FAILED, Question, Verdict, Verifier
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

    candidates: all finished answers, in the order in which they were judged
    best: the one with the highest score; of equals the first
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
        self._thread: ThreadPoolExecutor | None = None
        self._waits: set[Future[Sequence[Verdict]]] = set()
        self.candidates: list[Candidate] = []
        self.fresh: list[Candidate] = []
        self.curve: list[Improvement] = []
        self.best: Candidate | None = None

    @property
    def free(self) -> bool:
        """True if verdicts take no forwards."""
        return self._verifier is not None and not self._verifier.cost

    @property
    def settled(self) -> bool:
        """True if the best score is the target, or the highest that there is."""
        return self.best is not None and self.best.score >= self.target

    def __call__(self, item: Score) -> Task:
        """Begin to judge answers."""
        nodes = cast(Sequence[Hypothesis], item.nodes)  # the executor made them
        answers = item.answers or [node.row.result() for node in nodes]

        def finish(verdicts: Sequence[Verdict]) -> list[Candidate]:
            judged = zip(nodes, answers, verdicts, strict=True)
            return [self._candidate(*one, keep=item.keep) for one in judged]

        if self._verifier is None:
            return Finished(finish([Verdict(float("nan"))] * len(answers)))
        if not self._verifier.blocks:
            return Finished(finish(self._ask(answers)))
        self._thread = self._thread or ThreadPoolExecutor(1, "dlm-verify")
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
        return self._candidate(node, answer, Verdict(float("nan")), keep=True)

    def _told(self, verdicts: Future[Sequence[Verdict]]) -> None:
        self._waits.discard(verdicts)
        self._wake()

    def _ask(self, answers: Sequence[Generation]) -> Sequence[Verdict]:
        """The verdicts; an exception of the verifier counts as the lowest scores."""
        assert self._verifier is not None
        spent = self._question.spent
        spent.add(calls=len(answers))
        try:
            verdicts = list(self._verifier.score(answers, self._question))
            if len(verdicts) != len(answers):
                raise ValueError(f"gave {len(verdicts)} verdicts for {len(answers)} answers")
        except Exception:
            spent.add(errors=len(answers))
            return [FAILED] * len(answers)
        return [FAILED if isnan(verdict.score) else verdict for verdict in verdicts]

    def _candidate(
        self, node: Hypothesis, answer: Generation, verdict: Verdict, *, keep: bool
    ) -> Candidate:
        score, feedback, spans = verdict
        number, nfe = len(self.candidates), self._spent()
        made = Candidate(number, node.number, answer, score, feedback, spans, nfe)
        if not keep:
            return made
        node.score = score
        self.candidates.append(made)
        self.fresh.append(made)
        if (
            self.best is None
            or score > self.best.score
            or (isnan(self.best.score) and not isnan(score))
        ):
            self.best = made
            point = Improvement(nfe, score, made.text, number)
            self.curve.append(point)
            if self._on_improve is not None:
                self._on_improve(point)
        return made
