"""The answers of a decision: probabilities over labels, and what they come to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

from dlm.engine.decisions.questions import Choice, Level, Predicate, Question, Score


@dataclass(frozen=True, slots=True)
class PredicateAnswer:
    """The probability that a predicate is true.

    name: of the question
    probability: of true; that of false is the rest
    label_mass: probability that the model gave to all labels before they were renormalised; None
        for pseudo-likelihoods, which are no shares of one distribution
    """

    name: str | None
    probability: float
    label_mass: float | None

    def to_json(self) -> dict[str, Any]:
        """The answer in OpenAI's form, with the mass of its labels as SGLang names it."""
        own = {"name": self.name, "type": "predicate", "probability": self.probability}
        return own | _mass(self.label_mass)


@dataclass(frozen=True, slots=True)
class ChoiceAnswer:
    """The most probable choice and the distribution over all.

    name: of the question
    choice: the value of the most probable option, the first one of equals
    confidence: 0 for a uniform distribution, 1 for certainty: `(n p - 1) / (n - 1)` of the largest
        of n probabilities p
    probabilities: (value, probability) of each option in the question's order
    label_mass: as in `PredicateAnswer`
    """

    name: str | None
    choice: str | bool
    confidence: float
    probabilities: tuple[tuple[str | bool, float], ...]
    label_mass: float | None

    def to_json(self) -> dict[str, Any]:
        """As `PredicateAnswer.to_json`."""
        pairs = [{"value": value, "probability": p} for value, p in self.probabilities]
        own = {
            "name": self.name,
            "type": "choice",
            "choice": self.choice,
            "confidence": self.confidence,
            "probabilities": pairs,
        }
        return own | _mass(self.label_mass)


@dataclass(frozen=True, slots=True)
class ScoreAnswer:
    """The expected level and the distribution over all.

    name: of the question
    score: expectation of the number of the level, from 0
    confidence: 1 less the mean distance from the most probable level, in units of that of a uniform
        distribution from its middle; at least 0
    probabilities: of each level, from the lowest
    levels: the question's levels, from the lowest
    label_mass: as in `PredicateAnswer`
    """

    name: str | None
    score: float
    confidence: float
    probabilities: tuple[float, ...]
    levels: tuple[Level, ...]
    label_mass: float | None

    def to_json(self) -> dict[str, Any]:
        """As `PredicateAnswer.to_json`."""
        pairs = enumerate(zip(self.levels, self.probabilities, strict=True))
        own = {
            "name": self.name,
            "type": "score",
            "score": self.score,
            "confidence": self.confidence,
            "probabilities": [
                {"value": number, "label": level.label, "probability": p}
                for number, (level, p) in pairs
            ],
        }
        return own | _mass(self.label_mass)


Answer = PredicateAnswer | ChoiceAnswer | ScoreAnswer


@dataclass(frozen=True, slots=True)
class DecisionCosts:
    """The costs of the answers about one input.

    nfe: canvases computed, a prefill of shared keys included
    forwards: calls of the model, each over one or more canvases
    token_forwards: positions computed
    input_tokens: ids given to the model, of each question's canvas once
    cached_tokens: the part of them whose keys were computed once for all canvases
    seconds: from the first forward to the last, waiting for other requests included
    """

    nfe: int
    forwards: int
    token_forwards: int
    input_tokens: int
    cached_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Decisions:
    """The answers about one input, in the order of the questions, and their costs."""

    answers: tuple[Answer, ...]
    costs: DecisionCosts

    def __iter__(self) -> Iterator[Answer]:
        """The answers in order."""
        return iter(self.answers)

    def __getitem__(self, name: str) -> Answer:
        """The answer to the question of this name. Raises `KeyError`."""
        for answer in self.answers:
            if answer.name == name:
                return answer
        raise KeyError(name)


def _mass(label_mass: float | None) -> dict[str, Any]:
    return {} if label_mass is None else {"x_label_mass": label_mass}


def answer_of(
    question: Question, probabilities: Sequence[float], label_mass: float | None
) -> Answer:
    """The answer that `probabilities` of the question's labels, which sum up to 1, come to.

    The labels of a predicate are true and false.
    """
    match question:
        case Predicate(name=name):
            return PredicateAnswer(name, probabilities[0], label_mass)
        case Choice(name=name):
            values = [option.value for option in question.options]
            best = max(range(len(values)), key=probabilities.__getitem__)
            pairs = tuple(zip(values, probabilities, strict=True))
            sure = choice_confidence(probabilities)
            return ChoiceAnswer(name, values[best], sure, pairs, label_mass)
        case Score(name=name):
            score = fsum(level * p for level, p in enumerate(probabilities))
            sure = score_confidence(probabilities)
            return ScoreAnswer(name, score, sure, tuple(probabilities), question.scale, label_mass)


def choice_confidence(probabilities: Sequence[float]) -> float:
    """The largest probability on a scale from 0 (uniform) to 1."""
    count = len(probabilities)
    return min(1.0, max(0.0, (count * max(probabilities) - 1) / (count - 1)))


def score_confidence(probabilities: Sequence[float]) -> float:
    """1 less the mean distance from the most probable level, relative to a uniform distribution's
    from its middle; at least 0.
    """
    count = len(probabilities)
    top = max(range(count), key=probabilities.__getitem__)
    spread = fsum(p * abs(level - top) for level, p in enumerate(probabilities))
    uniform = fsum(abs(level - (count - 1) / 2) for level in range(count)) / count
    return max(0.0, 1 - spread / uniform)
