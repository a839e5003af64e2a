"""Verifiers that cost nothing: statistics of the way an answer was decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, isnan

from dlm.engine.generation import Generation
from dlm.search.verifier import Question, Verdict, Verifier


@dataclass(frozen=True, slots=True)
class Confidence(Verifier):
    """`confidence`: the mean log-probability of the tokens at their commits, without the end id.

    It depends on the order in which they were committed, so it compares answers that were decoded
    by the same rules alone.
    """

    @property
    def highest(self) -> float:
        """Certainty."""
        return 0.0

    def score(self, answers: Sequence[Generation], question: Question) -> Sequence[Verdict]:
        """See `Verifier`."""
        return [Verdict(mean_log(answer.logprobs)) for answer in answers]


def mean_log(logs: Sequence[float]) -> float:
    """The mean of those that are numbers; the lowest there is where none are."""
    known = [value for value in logs if not isnan(value)]
    return fsum(known) / len(known) if known else float("-inf")
