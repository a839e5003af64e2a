"""`/v1/responses`: text in, text out, nothing stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

import dlm
from dlm.serve.answers import Ending, chat_logprobs, costs, new_id, token_fields, usage
from dlm.serve.bodies import JsonRoute
from dlm.serve.errors import ApiError, refused
from dlm.serve.jobs import Job
from dlm.serve.prompts import Prompt, chat_prompt, messages_of
from dlm.serve.routes.common import (
    answered,
    check_format,
    in_thread,
    opened,
    options_for,
    started,
)
from dlm.serve.schemas import InputItem, Message, ResponsesRequest
from dlm.serve.service import Service
from dlm.serve.streams import frame

router = APIRouter(route_class=JsonRoute)

LOGPROBS: Final = "message.output_text.logprobs"
"""The one thing that `include` may name."""


@router.post("/v1/responses")
async def responses(request: Request, body: ResponsesRequest) -> Response:
    """Answer an input, a text or messages."""
    if body.reasoning is not None and body.reasoning.effort is not None:
        body = body.model_copy(update={"reasoning_effort": body.reasoning.effort})
    service, asked = opened(request, body)
    _check(body)
    prompt = await in_thread(_prompt, service, body)
    options = options_for(service, body, asked, prompt, service.settings.max_new_tokens)
    job = await started(service, body, asked, [prompt], [options], "responses")
    return await answered(request, body, job, ResponseShape(job, body))


@router.api_route(
    "/v1/responses/{name:path}", methods=["GET", "DELETE", "POST"], include_in_schema=False
)
async def stored(name: str) -> Response:
    """Responses are not stored."""
    told = f"this server stores no responses, so there is no {name[:80]!r}"
    raise ApiError(404, told, code="not_found")


def _check(body: ResponsesRequest) -> None:
    """Raise `ApiError` 400 for what only responses have."""
    if body.diffusing:
        raise refused("diffusing", "`diffusing` is a form of chat and text completions")
    check_format("text.format", body.text.format if body.text else None)
    for index, name in enumerate(body.include or ()):
        if name != LOGPROBS:
            param = f"include[{index}]"
            raise refused(param, f"`{param}`: must be {LOGPROBS!r}, got {name[:80]!r}")


def _prompt(service: Service, body: ResponsesRequest) -> Prompt:
    """The ids of the instructions and the input. Raises `ApiError` 400."""
    given = body.input
    items = [InputItem(role="user", content=given)] if isinstance(given, str) else given
    for index, item in enumerate(items):
        if item.type not in (None, "message") or item.role is None:
            param = f"input[{index}]"
            kind = f"an item of type {(item.type or 'none')[:40]!r}"
            raise refused(param, f"`{param}`: must be a message with a role, got {kind}")
    talk = messages_of([_message(str(item.role), item.content) for item in items], "input")
    if body.instructions is not None:
        talk.insert(0, {"role": "system", "content": body.instructions})
    return chat_prompt(service, talk)


def _message(role: str, content: Any) -> Message:
    return Message.model_construct(role=role, content=content)


class ResponseShape:
    """Bodies and events of responses."""

    def __init__(self, job: Job, body: ResponsesRequest) -> None:
        self._job, self._body = job, body
        self._id, self._item, self._number = new_id("resp"), new_id("msg"), 0
        self._logprobs = LOGPROBS in (body.include or ()) or bool(body.top_logprobs)

    def whole(self, answers: list[dlm.Generation]) -> dict[str, Any]:
        """The body of a response that has ended."""
        (answer,) = answers
        complete = answer.finish_reason == "stop"
        told = usage(self._job, answers)
        return {
            **self._head("completed" if complete else "incomplete"),
            "incomplete_details": None if complete else {"reason": "max_output_tokens"},
            "output": [self._message(answer)],
            "usage": {
                "input_tokens": told["prompt_tokens"],
                "input_tokens_details": {
                    "cached_tokens": told["prompt_tokens_details"]["cached_tokens"],
                    "cache_write_tokens": 0,
                },
                "output_tokens": told["completion_tokens"],
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": told["total_tokens"],
            },
            "dlm": costs(self._job, answers),
            **(token_fields(answer) if self._body.return_token_ids else {}),
        }

    def begin(self) -> Iterator[bytes]:
        """The response, its message and the text of it, all empty."""
        yield self._event("created", response=self._head("in_progress"))
        yield self._event("in_progress", response=self._head("in_progress"))
        item = {**self._empty_message(), "status": "in_progress"}
        yield self._event("output_item.added", output_index=0, item=item)
        yield self._event("content_part.added", **self._place(), part=_part(""))

    def text(self, number: int, delta: str) -> Iterator[bytes]:
        """A delta of settled text."""
        yield self._event("output_text.delta", **self._place(), delta=delta, logprobs=[])

    def canvas(self, number: int, shown: str, progress: float) -> Iterator[bytes]:
        """Responses have no form for this; it is refused."""
        return iter(())

    def event(self, number: int, event: Mapping[str, Any]) -> Iterator[bytes]:
        """An event of the canvas, of a type of its own."""
        yield self._event("dlm.event", **self._place(), event=event)

    def end(self, number: int, answer: dlm.Generation, sent: int) -> Iterator[bytes]:
        """The rest of the text, and everything once more."""
        message = self._message(answer)
        (part,) = message["content"]
        if rest := part["text"][sent:]:
            yield from self.text(number, rest)
        told = {"text": part["text"], "logprobs": part["logprobs"]}
        yield self._event("output_text.done", **self._place(), **told)
        yield self._event("content_part.done", **self._place(), part=part)
        yield self._event("output_item.done", output_index=0, item=message)

    def finish(self, answers: list[dlm.Generation]) -> Iterator[bytes]:
        """The whole response."""
        whole = self.whole(answers)
        yield self._event(whole["status"], response=whole)

    def _event(self, kind: str, **fields: Any) -> bytes:
        name, number = f"response.{kind}", self._number
        self._number += 1
        return frame({"type": name, "sequence_number": number, **fields}, name)

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item, "output_index": 0, "content_index": 0}

    def _empty_message(self) -> dict[str, Any]:
        return {"id": self._item, "type": "message", "role": "assistant", "content": []}

    def _message(self, answer: dlm.Generation) -> dict[str, Any]:
        """The message of a response that has ended."""
        status = "completed" if answer.finish_reason == "stop" else "incomplete"
        part = _part(Ending(self._job, self._body, answer).text)
        if self._logprobs:
            part["logprobs"] = chat_logprobs(self._job, answer)["content"]
        return {**self._empty_message(), "status": status, "content": [part]}

    def _head(self, status: str) -> dict[str, Any]:
        """The fields of a response in any state."""
        body, service = self._body, self._job.service
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._job.created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": service.name,
            "output": [],
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "reasoning": {"effort": body.reasoning_effort, "summary": None},
            "store": False,
            "temperature": body.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
            "top_logprobs": body.top_logprobs or 0,
            "top_p": body.top_p,
            "truncation": "disabled",
            "usage": None,
        }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
