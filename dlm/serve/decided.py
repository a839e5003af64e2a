"""Decisions over HTTP: the answers of the engine as bodies of the two wire forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dlm
from dlm.serve.questions import SystemOneQuestion


def decision_body(model: str, found: dlm.Decisions) -> dict[str, Any]:
    """The body that `/v1/decisions` answers with."""
    costs = found.costs
    return {
        "answers": [answer.to_json() for answer in found],
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


def _system_one_answer(question: SystemOneQuestion, answer: dlm.Answer) -> dict[str, Any]:
    """An answer in System One's form."""
    own = answer.to_json()
    del own["name"]
    match answer:
        case dlm.PredicateAnswer():
            own |= {"type": "noul", "noul": own.pop("probability")}
        case dlm.ChoiceAnswer():
            own["probabilities"] = dict(answer.probabilities)
        case dlm.ScoreAnswer():
            own["legend"] = _legend(question)
            own["probabilities"] = {str(n): p for n, p in enumerate(answer.probabilities)}
    return own


def _legend(question: SystemOneQuestion) -> dict[str, Any]:
    """The levels as they were given, by their numbers."""
    levels: Sequence[Any] = question.criteria if isinstance(question.criteria, list) else ()
    return {str(number): level for number, level in enumerate(levels)}
