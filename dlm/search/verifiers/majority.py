"""Votes of the answers themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp, fsum, inf
from typing import Any, ClassVar

from dlm.engine.generation import Generation
from dlm.search.extract import extract as extractor_of
from dlm.search.verifier import Question, Verdict, Verifier, ask, require_tokenizer


@dataclass(frozen=True, slots=True)
class Majority(Verifier):
    """`majority(extract)`: the share of the answers that come to the same (self-consistency, Wang
    et al., arXiv 2203.11171).

    An answer from which nothing can be extracted has no vote, and the score 0. Of answers that come
    to the same, all have the same score.

    extract: name of an extractor (`dlm.search.extract`), or a function from a text to its answer,
        or None
    weight: a verifier; a vote counts `exp(score)`, as for log-probabilities (empty: 1)
    """

    extract: Any = "auto"
    weight: Any = ""

    tier: ClassVar[str] = "T2"
    relative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        extractor_of(self.extract)

    @property
    def parts(self) -> tuple[Verifier, ...]:
        """The weights."""
        return (self.weight,) if self.weight else ()

    def resolve(self, parse: Callable[[Any], Verifier]) -> Verifier:
        """See `Verifier`."""
        return replace(self, weight=parse(self.weight)) if self.weight else self

    def bind(self, question: Question) -> Verifier:
        """See `Verifier`."""
        require_tokenizer(self, question)
        return replace(self, weight=self.weight.bind(question)) if self.weight else self

    def score(self, answers: Sequence[Generation], question: Question) -> Sequence[Verdict]:
        """See `Verifier`."""
        weights: Sequence[Verdict] = [Verdict(0.0)] * len(answers)
        if self.weight:
            weights = ask(self.weight, answers, question)
        find, verdicts = extractor_of(self.extract), []
        for answer, weight in zip(answers, weights, strict=True):
            found = None
            with question.spent.guarded():
                found = find(answer.text or "")
            verdicts.append(Verdict(0.0, weight.feedback, weight.spans, (found, weight)))
        return verdicts

    def compare(
        self, answers: Sequence[Generation], verdicts: Sequence[Verdict]
    ) -> Sequence[float]:
        """See `Verifier`."""
        known = [at for at, verdict in enumerate(verdicts) if verdict.evidence is not None]
        found = [verdicts[at].evidence[0] for at in known]
        votes = self._votes([answers[at] for at in known], [verdicts[at] for at in known])
        counts: dict[str | None, float] = {}
        for answer, vote in zip(found, votes, strict=True):
            counts[answer] = counts.get(answer, 0.0) + vote
        counts[None], total = 0.0, fsum(votes)
        scores = [-inf] * len(verdicts)
        for at, answer in zip(known, found, strict=True):
            scores[at] = counts[answer] / total if total else 0.0
        return scores

    def _votes(self, answers: Sequence[Generation], verdicts: Sequence[Verdict]) -> Sequence[float]:
        """The weight of each vote, relative to the largest one."""
        if not self.weight:
            return [1.0] * len(answers)
        logs = self.weight.compare(answers, [verdict.evidence[1] for verdict in verdicts])
        top = max(logs, default=0.0)
        return [1.0 if log == top else exp(log - top) for log in logs]
