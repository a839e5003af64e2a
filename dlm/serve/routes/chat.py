"""`/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

import dlm
from dlm.serve.answers import (
    Ending,
    chat_logprobs,
    costs,
    diffusion_meta,
    ended_choice,
    new_id,
    usage,
)
from dlm.serve.bodies import JsonRoute
from dlm.serve.errors import refused
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
from dlm.serve.schemas import ChatRequest
from dlm.serve.service import Service
from dlm.serve.streams import frame

router = APIRouter(route_class=JsonRoute)


@router.post("/v1/chat/completions")
async def chat_completions(request: Request, body: ChatRequest) -> Response:
    """Answer the last message of a talk, or go on with it where it is the assistant's."""
    service, asked = opened(request, body)
    prompt = await in_thread(_prompt, service, body)
    options = options_for(service, body, asked, prompt, service.settings.max_new_tokens)
    job = await started(service, body, asked, [prompt], [options], "chat")
    return await answered(request, body, job, ChatShape(job, body))


def _prompt(service: Service, body: ChatRequest) -> Prompt:
    """The ids of the messages. Raises `ApiError` 400."""
    check_format("response_format", body.response_format)
    goes_on = body.messages[-1].role == "assistant"
    if goes_on and body.continue_final_message is False:
        rule = "must be true after a final message of the assistant, which is gone on with"
        raise refused("continue_final_message", f"`continue_final_message` {rule}")
    if body.continue_final_message and not goes_on:
        rule = "needs a final message of the assistant"
        raise refused("continue_final_message", f"`continue_final_message` {rule}")
    if body.add_generation_prompt is False and not goes_on:
        raise refused("add_generation_prompt", "`add_generation_prompt` must be true")
    return chat_prompt(service, messages_of(body.messages), body.chat_template_kwargs)


class ChatShape:
    """Bodies and chunks of chat completions."""

    def __init__(self, job: Job, body: ChatRequest) -> None:
        self._job, self._body, self._id = job, body, new_id("chatcmpl")
        self._usage = bool(body.stream_options and body.stream_options.include_usage)

    def whole(self, answers: list[dlm.Generation]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        choices = []
        for index, answer in enumerate(answers):
            ending = Ending(self._job, self._body, answer)
            message = {"role": "assistant", "content": ending.text, "refusal": None}
            choices.append({"index": index, "message": message, **self._end(answer, ending)})
        return {
            **self._head("chat.completion"),
            "choices": choices,
            "usage": usage(self._job, answers),
            "dlm": costs(self._job, answers),
        }

    def begin(self) -> Iterator[bytes]:
        """The role of each answer."""
        for index in range(self._job.n):
            yield self._chunk(index, {"role": "assistant", "content": ""})

    def text(self, number: int, delta: str) -> Iterator[bytes]:
        """A delta of settled text."""
        yield self._chunk(number, {"content": delta})

    def canvas(self, number: int, shown: str, progress: float) -> Iterator[bytes]:
        """The whole text so far, in the form of Inception's API."""
        yield self._chunk(number, {"content": shown}, **diffusion_meta(progress))

    def event(self, number: int, event: Mapping[str, Any]) -> Iterator[bytes]:
        """An event of the canvas."""
        yield self._chunk(number, {}, dlm={"event": event})

    def end(self, number: int, answer: dlm.Generation, sent: int) -> Iterator[bytes]:
        """The reason of the end, with the rest of the text."""
        ending = Ending(self._job, self._body, answer)
        delta = {"content": ending.text[sent:]} if ending.text[sent:] else {}
        more = {"dlm": costs(self._job, [answer])}
        if not self._body.diffusing:
            yield self._chunk(number, delta, self._end(answer, ending), **more)
            return
        content = {"content": ending.text}
        yield self._chunk(number, content, self._end(answer, ending), **diffusion_meta(1.0))
        yield self._chunk(number, {}, **more)

    def finish(self, answers: list[dlm.Generation]) -> Iterator[bytes]:
        """The usage, where it was asked for."""
        if self._usage:
            told = {"choices": [], "usage": usage(self._job, answers)}
            yield frame({**self._head("chat.completion.chunk"), **told})

    def _head(self, kind: str) -> dict[str, Any]:
        service = self._job.service
        return {
            "id": self._id,
            "object": kind,
            "created": self._job.created,
            "model": service.name,
            "system_fingerprint": service.fingerprint,
        }

    def _chunk(
        self,
        number: int,
        delta: Mapping[str, str],
        end: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> bytes:
        choice = {"index": number, "delta": delta, **(end or {"finish_reason": None})}
        told: dict[str, Any] = {"usage": None} if self._usage else {}
        return frame({**self._head("chat.completion.chunk"), "choices": [choice], **told, **more})

    def _end(self, answer: dlm.Generation, ending: Ending) -> dict[str, Any]:
        """The fields of a choice that has ended."""
        logprobs = chat_logprobs(self._job, answer) if self._body.logprobs else None
        return ended_choice(self._body, answer, ending, logprobs)
