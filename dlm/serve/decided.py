"""Decisions over HTTP: the answers of the engine as bodies of the two wire forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dlm
from dlm.serve.decisions import SystemOneQuestion


def decision_body(model: str, found: dlm.Decisions) -> dict[str, Any]:
    """The body that `/v1/decisions` answers with."""
    costs = found.costs
    return {
        "answers": [_answer(answer) for answer in found],
        "model": model,
        "usage": {
            "input_tokens": costs.input_tokens,
            "input_tokens_details": {
                "cache_write_tokens": 0,
                "cached_tokens": costs.cached_tokens,
            },
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": costs.input_tokens,
        },
        "dlm": costs_of(found),
    }


def system_one_body(
    model: str, questions: Mapping[str, SystemOneQuestion], found: dlm.Decisions
) -> dict[str, Any]:
    """The body that `/v1/systemone` answers with."""
    pairs = zip(questions.items(), found, strict=True)
    return {
        "model": model,
        "answers": {name: _system_one_answer(asked, answer) for (name, asked), answer in pairs},
        "usage": {"input_tokens": found.costs.input_tokens, "output_tokens": 0},
        "dlm": costs_of(found),
    }


def costs_of(found: dlm.Decisions) -> dict[str, Any]:
    """The `dlm` object of an answer."""
    costs = found.costs
    return {
        "nfe": costs.nfe,
        "forwards": costs.forwards,
        "token_forwards": costs.token_forwards,
        "seconds": costs.seconds,
    }


def _answer(answer: dlm.Answer) -> dict[str, Any]:
    """An answer in OpenAI's form, with the mass of its labels."""
    match answer:
        case dlm.PredicateAnswer():
            own: dict[str, Any] = {"type": "predicate", "probability": answer.probability}
        case dlm.ChoiceAnswer():
            own = {
                "type": "choice",
                "choice": answer.choice,
                "confidence": answer.confidence,
                "probabilities": [
                    {"value": value, "probability": p} for value, p in answer.probabilities
                ],
            }
        case dlm.ScoreAnswer():
            pairs = zip(answer.levels, answer.probabilities, strict=True)
            own = {
                "type": "score",
                "score": answer.score,
                "confidence": answer.confidence,
                "probabilities": [
                    {"value": number, "label": level.label, "probability": p}
                    for number, (level, p) in enumerate(pairs)
                ],
            }
    return {"name": answer.name, **own, **_mass(answer)}


def _system_one_answer(question: SystemOneQuestion, answer: dlm.Answer) -> dict[str, Any]:
    """An answer in System One's form, with the mass of its labels as SGLang has it."""
    match answer:
        case dlm.PredicateAnswer():
            own: dict[str, Any] = {"type": "noul", "noul": answer.probability}
        case dlm.ChoiceAnswer():
            own = {
                "type": "choice",
                "choice": answer.choice,
                "confidence": answer.confidence,
                "probabilities": dict(answer.probabilities),
            }
        case dlm.ScoreAnswer():
            own = {
                "type": "score",
                "score": answer.score,
                "confidence": answer.confidence,
                "legend": _legend(question),
                "probabilities": {str(n): p for n, p in enumerate(answer.probabilities)},
            }
    return {**own, **_mass(answer)}


def _legend(question: SystemOneQuestion) -> dict[str, Any]:
    """The levels as they were given, by their numbers."""
    levels: Sequence[Any] = question.criteria if isinstance(question.criteria, list) else ()
    return {str(number): level for number, level in enumerate(levels)}


def _mass(answer: dlm.Answer) -> dict[str, float]:
    return {} if answer.label_mass is None else {"x_label_mass": answer.label_mass}
