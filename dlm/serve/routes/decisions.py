"""`/v1/decisions` and `/v1/systemone`: typed questions about one input, answered at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from fastapi import APIRouter, Request
from fastapi.responses import Response

import dlm
from dlm.errors import shortened
from dlm.serve.bodies import JsonRoute
from dlm.serve.decided import decision_body, system_one_body
from dlm.serve.decisions import (
    DecisionRequest,
    Extension,
    SystemOneRequest,
    decision_error,
    input_of,
    options_of,
)
from dlm.serve.errors import ApiError
from dlm.serve.facts import facts
from dlm.serve.jobs import ClientGone, finished
from dlm.serve.parts import as_text
from dlm.serve.questions import questions_of, system_one_questions
from dlm.serve.routes.common import json_response, service_for
from dlm.serve.service import Service

router = APIRouter(route_class=JsonRoute)


@router.post("/v1/decisions")
async def decisions(request: Request, body: DecisionRequest) -> Response:
    """Answer predicates, choices and scores by probabilities, in OpenAI's form."""
    service = service_for(request, body, body.model)
    asked = input_of(body.input), questions_of(body.questions)
    try:
        found = await _decided(request, service, body.dlm, *asked)
    except ClientGone:
        return Response(status_code=499)
    return json_response(decision_body(service.name, found))


@router.post("/v1/systemone")
async def system_one(request: Request, body: SystemOneRequest) -> Response:
    """Answer nouls, choices and scores by probabilities, in System One's form."""
    service = service_for(request, body, body.model)
    asked = as_text("state", body.state), system_one_questions(body.questions)
    try:
        found = await _decided(request, service, body.dlm, *asked, ids=list(body.questions))
    except ClientGone:
        return Response(status_code=499)
    return json_response(system_one_body(service.name, body.questions, found))


async def _decided(
    request: Request,
    service: Service,
    extension: Extension | None,
    source: str | list[dict[str, str]],
    questions: list[dlm.Question],
    ids: Sequence[str] | None = None,
) -> dlm.Decisions:
    """The answers, unless the client leaves first. Raises `ClientGone`, or `ApiError`.

    ids: keys of the questions of a System One body
    """
    options = options_of(extension)
    _check_sizes(service, source, questions, ids)
    with service.places.take(1, 0):
        try:
            work = _work(service, source, questions, options)
            found = await finished(work, service, request.receive)
        except (ClientGone, ApiError):
            raise
        except Exception as error:
            if not isinstance(error, dlm.InvalidRequest):
                service.metrics.failed()
            raise decision_error(error, ids) from error
    costs = found.costs
    service.metrics.computed("decide", costs.nfe, costs.token_forwards)
    told = facts(request.scope)
    told.prompt_tokens, told.nfe = costs.input_tokens, costs.nfe
    return found


def _check_sizes(
    service: Service,
    source: str | list[dict[str, str]],
    questions: Sequence[dlm.Question],
    ids: Sequence[str] | None,
) -> None:
    """Raise `ApiError` 400 for texts that no canvas can hold, before they are tokenized."""
    text = source if isinstance(source, str) else "".join(turn["content"] for turn in source)
    service.check_size("input" if ids is None else "state", text)
    for number, question in enumerate(questions):
        where = f"questions[{number}]" if ids is None else f"questions.{shortened(ids[number], 40)}"
        service.check_size(where, "".join(_texts(question)))


def _texts(question: dlm.Question) -> Iterator[str]:
    """The texts of a question that the model sees."""
    yield question.instructions
    if isinstance(question, dlm.Predicate):
        yield (question.true or "") + (question.false or "")
    elif isinstance(question, dlm.Choice):
        for option in question.options:
            yield str(option.value) + (option.description or "")
    else:
        for level in question.scale:
            yield level.label + (level.description or "")


async def _work(
    service: Service,
    source: str | list[dict[str, str]],
    questions: list[dlm.Question],
    options: dlm.DecisionOptions,
) -> dlm.Decisions:
    """Make the canvases aside, then compute them between the steps of what is decoded."""
    engine = service.engine
    asked = source, questions, options, service.max_length
    job = await asyncio.to_thread(engine.engine.prepare_decisions, *asked)
    service.metrics.accepted("decisions", job.input_tokens, 1, 0)
    return await engine.run_decisions(job)
