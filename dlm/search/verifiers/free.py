"""Verifiers that cost nothing: statistics of the way an answer was decoded.

They depend on the order in which tokens were committed (by up to 0.49 nats a token, arXiv
2606.00997), so they compare answers that were decoded by the same rules alone; `pll` compares all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, fsum, inf, isnan, log
from typing import Any, ClassVar, Final

from dlm.config.checks import require_number
from dlm.config.generation import MOST_LIKELY
from dlm.engine.generation import Generation
from dlm.search.verifier import Question, Verdict, Verifier

LEAST: Final = 1e-12
"""A probability below it counts as none."""


@dataclass(frozen=True, slots=True)
class Confidence(Verifier):
    """`confidence`: the mean log-probability of the tokens at their commits, without the end id.

    variance: weight of the variance of these log-probabilities, which is taken off: right answers
        have a low one (arXiv 2606.00997)
    """

    variance: float = 0.0

    def __post_init__(self) -> None:
        require_number("variance", self.variance, low=0.0)

    @property
    def highest(self) -> float:
        """Certainty."""
        return 0.0

    def score(self, answers: Sequence[Generation], question: Question) -> Sequence[Verdict]:
        """See `Verifier`."""
        return [Verdict(self._of(answer.logprobs)) for answer in answers]

    def _of(self, logs: Sequence[float]) -> float:
        mean = mean_log(logs)
        if mean == -inf or not self.variance:
            return mean
        return mean - self.variance * mean_log([(value - mean) ** 2 for value in logs])


@dataclass(frozen=True, slots=True)
class PathLogprob(Verifier):
    """`path_logprob`: the log-probability of the path: the sum over the tokens, at their commits,
    without the end id (self-rewarding SMC, arXiv 2602.01849). Short answers have a high one.
    """

    tier: ClassVar[str] = "T2"

    @property
    def highest(self) -> float:
        """Certainty."""
        return 0.0

    def score(self, answers: Sequence[Generation], question: Question) -> Sequence[Verdict]:
        """See `Verifier`."""
        logs = ([value for value in answer.logprobs if not isnan(value)] for answer in answers)
        return [Verdict(fsum(own) if own else -inf) for own in logs]


@dataclass(frozen=True, slots=True)
class PathEntropy(Verifier):
    """`path_entropy`: the mean entropy, negated, of the distributions that the tokens were
    committed from (in the manner of denoising entropy, arXiv 2512.21336).

    The paper takes the mean over all masked positions of each step, which an engine does not bring
    to the host; here it is over the committed position of each token. All ids but the most likely
    ones count as one, so that it is a lower bound.
    """

    tier: ClassVar[str] = "T3"

    @property
    def options(self) -> Mapping[str, Any]:
        """The most likely ids at each commit."""
        return {"top_logprobs": MOST_LIKELY}

    @property
    def highest(self) -> float:
        """Certainty."""
        return 0.0

    def score(self, answers: Sequence[Generation], question: Question) -> Sequence[Verdict]:
        """See `Verifier`."""
        found = ([entropy(top) for top in answer.top_logprobs if top] for answer in answers)
        return [Verdict(-fsum(own) / len(own) if own else -inf) for own in found]


def entropy(top: Sequence[tuple[int, float]]) -> float:
    """The entropy in nats of a distribution whose largest log-probabilities are these, the rest of
    it taken as one id.
    """
    known = [exp(value) for _, value in top]
    rest = 1.0 - fsum(known)
    return -fsum(p * log(p) for p in (*known, rest) if p > LEAST)


def mean_log(logs: Sequence[float]) -> float:
    """The mean of those that are numbers; the lowest there is where none are."""
    known = [value for value in logs if not isnan(value)]
    return fsum(known) / len(known) if known else -inf
