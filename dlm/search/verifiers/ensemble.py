"""Several verifiers as one, by the ranks that each of them gives to the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import fsum, inf
from typing import Any, ClassVar, Final, Literal

from dlm.engine.generation import Generation
from dlm.errors import InvalidRequest, shown, unknown_name
from dlm.search.verifier import Question, Verdict, Verifier, ask

HOWS: Final = ("mean", "min")
MOST: Final = 16
"""Members of an ensemble."""


@dataclass(frozen=True, slots=True)
class Ensemble(Verifier):
    """`ensemble(members)`: the mean of the ranks that several verifiers give to an answer.

    A rank is the share of the answers that score lower, equal ones counting half: scales do not
    matter, and an answer that fools one verifier has the others against it (Ma et al., arXiv
    2501.09732, section 4). Words and spans of all members are told.

    members: verifiers, or their specs
    how: `mean` of the ranks, or `min`, the lowest one, which is conservative
    """

    members: tuple[Any, ...]
    how: Literal["mean", "min"] = "mean"

    tier: ClassVar[str] = "T2"
    relative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.members, tuple) or not 1 <= len(self.members) <= MOST:
            rule = f"an ensemble must be a list of 1 to {MOST} verifiers"
            raise InvalidRequest("verifier", f"{rule}, got {shown(self.members)}")
        if self.how not in HOWS:
            raise unknown_name("verifier: ensemble.how", str(self.how), HOWS)

    @property
    def parts(self) -> tuple[Verifier, ...]:
        """The members."""
        return self.members

    def resolve(self, parse: Callable[[Any], Verifier]) -> Verifier:
        """See `Verifier`."""
        return replace(self, members=tuple(map(parse, self.members)))

    def bind(self, question: Question) -> Verifier:
        """See `Verifier`."""
        return replace(self, members=tuple(member.bind(question) for member in self.members))

    def score(self, answers: Sequence[Generation], question: Question) -> Sequence[Verdict]:
        """See `Verifier`; one that fails ranks an answer last, and the others still count."""
        columns = [ask(member, answers, question) for member in self.members]
        return [_joined(verdicts) for verdicts in zip(*columns, strict=True)]

    def compare(
        self, answers: Sequence[Generation], verdicts: Sequence[Verdict]
    ) -> Sequence[float]:
        """See `Verifier`."""
        known = [at for at, verdict in enumerate(verdicts) if verdict.evidence is not None]
        columns = []
        for number, member in enumerate(self.members):
            own = [verdicts[at].evidence[number] for at in known]
            columns.append(ranks(member.compare([answers[at] for at in known], own)))
        scores = [-inf] * len(verdicts)
        for at, column in zip(known, zip(*columns, strict=True), strict=True):
            scores[at] = min(column) if self.how == "min" else fsum(column) / len(column)
        return scores


def _joined(verdicts: Sequence[Verdict]) -> Verdict:
    """The words and spans of several verdicts; no score before answers are compared."""
    words = "\n".join(dict.fromkeys(one.feedback for one in verdicts if one.feedback))
    spans = tuple(dict.fromkeys(span for one in verdicts for span in one.spans))
    return Verdict(0.0, words, spans, tuple(verdicts))


def ranks(scores: Sequence[float]) -> list[float]:
    """Of each score the share of the others that are lower, equal ones counting half."""
    most = max(len(scores) - 1, 1)
    return [
        (sum(other < own for other in scores) + (scores.count(own) - 1) / 2) / most
        for own in map(float, scores)
    ]
