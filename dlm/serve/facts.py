"""Facts about a request, gathered in its ASGI scope for the access log."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.types import Scope

FACTS: Final = "dlm.request"
"""Key of a request's `RequestFacts` in its ASGI scope."""


@dataclass(slots=True)
class RequestFacts:
    """The part of a request that the log tells; handlers fill in what they know.

    id: given by the client, or made here
    prompt_tokens, answer_tokens: of all its prompts and answers, None where they are not known
    nfe: forwards of all answers
    finish_reasons: of each answer
    seed: of the first answer
    error: field, code and type of the error that it is answered with, at once or in the middle of
        a stream; its message may quote the prompt
    prompts, answers: their texts, logged if the settings say so
    """

    id: str
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    nfe: int | None = None
    finish_reasons: Sequence[str] | None = None
    seed: int | None = None
    error: tuple[str | None, str | None, str] | None = None
    prompts: Sequence[str] | None = None
    answers: Sequence[str] | None = None


def facts(scope: Scope) -> RequestFacts:
    """The facts of a request that came through the gate; fresh ones of another."""
    found = scope.setdefault(FACTS, None)
    if found is None:
        found = scope[FACTS] = RequestFacts(f"req-{uuid.uuid4().hex}")
    assert isinstance(found, RequestFacts)
    return found


def request_id(scope: Scope) -> str:
    """The id of a request: in its answer's `X-Request-Id`, in logs and in error texts."""
    return facts(scope).id
