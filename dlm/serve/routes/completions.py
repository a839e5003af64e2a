"""`/v1/completions` and `/v1/fim/completions`: texts and ids that are continued or filled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

import dlm
from dlm.serve.answers import (
    Ending,
    completion_logprobs,
    costs,
    diffusion_meta,
    ended_choice,
    in_hole,
    new_id,
    usage,
)
from dlm.serve.bodies import JsonRoute
from dlm.serve.echoed import Echo, echoed, echoed_logprobs, prompt_costs, unanswered
from dlm.serve.errors import refused
from dlm.serve.jobs import ClientGone, Job
from dlm.serve.prompts import Prompt, plain_prompt, suffix_infill
from dlm.serve.routes.common import (
    answered,
    check_format,
    in_thread,
    json_response,
    opened,
    options_for,
    service_of,
    started,
)
from dlm.serve.schemas import CompletionRequest, FimRequest
from dlm.serve.service import Service
from dlm.serve.streams import frame

router = APIRouter(route_class=JsonRoute)

DEFAULT_TOKENS = 16
"""New tokens of a completion that names no number, as OpenAI has it."""

Body = CompletionRequest | FimRequest


@router.post("/v1/completions")
async def completions(request: Request, body: CompletionRequest) -> Response:
    """Continue texts or ids, or fill the gap before `suffix`."""
    check_format("response_format", body.response_format)
    if (echo := Echo.of(body)) is None:
        return await _complete(request, body, "completions", DEFAULT_TOKENS)
    return await _echo(request, body, echo)


@router.post("/v1/fim/completions")
async def fim_completions(request: Request, body: FimRequest) -> Response:
    """Fill the gap between `prompt` and `suffix`, of `max_tokens` tokens."""
    length = service_of(request).settings.max_new_tokens
    return await _complete(request, body, "fim", length)


async def _complete(request: Request, body: Body, route: str, length: int) -> Response:
    service, asked = opened(request, body)
    if body.suffix and asked.given.get("infill") is not None:
        raise refused("suffix", "`suffix` and `dlm.infill` both say what follows a hole")
    prompts = await in_thread(_prompts, service, body)
    options = [options_for(service, body, asked, prompt, length) for prompt in prompts]
    if body.suffix:
        options = await in_thread(_with_suffix, service, body.suffix, prompts, options)
    job = await started(service, body, asked, prompts, options, route)
    return await answered(request, body, job, CompletionShape(job, body), hole=bool(body.suffix))


async def _echo(request: Request, body: CompletionRequest, echo: Echo) -> Response:
    """Repeat prompts with the log-probabilities of their tokens, before the answers to them."""
    service, asked = opened(request, body)
    prompts = await in_thread(_prompts, service, body)
    echo.check_places(service, len(prompts), len(prompts) * (body.n or 1))
    scoring = await echo.scoring(service, prompts)
    with service.places.take(len(prompts), sum(len(prompt.ids) for prompt in prompts)):
        if echo.answers:
            options = [options_for(service, body, asked, one, DEFAULT_TOKENS) for one in prompts]
            job = await started(service, body, asked, prompts, options, "completions")
        else:
            job = unanswered(service, asked, prompts)
        try:
            answers, scores = await echoed(request, job, scoring)
        except ClientGone:
            return Response(status_code=499)
    return json_response(CompletionShape(job, body, scores).whole(answers))


def _prompts(service: Service, body: Body) -> list[Prompt]:
    """The prompts of a body: one, or a list of texts or of lists of ids."""
    given = body.prompt
    several = isinstance(given, list) and given and not isinstance(given[0], int)
    prompts: Sequence[Any] = given if several else [given]
    return [plain_prompt(service, prompt) for prompt in prompts]


def _with_suffix(
    service: Service, suffix: str, prompts: list[Prompt], options: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The options with a hole of their length, and the suffix after it."""
    found = []
    for prompt, own in zip(prompts, options, strict=True):
        infill = suffix_infill(service, suffix, own["max_new_tokens"])
        service.length_for("suffix", len(infill), len(prompt.ids), 0)
        found.append({**own, "infill": infill, "max_new_tokens": len(infill)})
    return found


class CompletionShape:
    """Bodies and chunks of text completions.

    scores: log-likelihoods of the prompts, where they are echoed with them
    """

    def __init__(self, job: Job, body: Body, scores: Sequence[dlm.LogLikelihood] = ()) -> None:
        self._job, self._body, self._id, self._scores = job, body, new_id("cmpl"), scores
        self._usage = bool(body.stream_options and body.stream_options.include_usage)

    def whole(self, answers: list[dlm.Generation]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        return {
            **self._head(),
            "choices": [self._whole(index, answer) for index, answer in enumerate(answers)],
            "usage": self._used(answers),
            "dlm": costs(self._job, answers) | prompt_costs(self._scores),
        }

    def begin(self) -> Iterator[bytes]:
        """The prompts, where they are to be echoed."""
        for number in range(len(self._job.prompts) * self._job.n):
            if echoed := self._echoed(number):
                yield self._chunk(number, echoed)

    def text(self, number: int, delta: str) -> Iterator[bytes]:
        """A delta of settled text."""
        yield self._chunk(number, delta)

    def canvas(self, number: int, shown: str, progress: float) -> Iterator[bytes]:
        """The whole text so far, in the form of Inception's API."""
        shown = self._echoed(number) + shown.removesuffix(self._body.suffix or "")
        yield self._chunk(number, shown, **diffusion_meta(progress))

    def event(self, number: int, event: Mapping[str, Any]) -> Iterator[bytes]:
        """An event of the canvas."""
        yield self._chunk(number, "", dlm={"event": event})

    def end(self, number: int, answer: dlm.Generation, sent: int) -> Iterator[bytes]:
        """The reason of the end, with the rest of the text."""
        text, end = self._ended(number, answer)
        rest, more = text[sent:], {"dlm": costs(self._job, [answer])}
        if self._body.diffusing:
            rest, more = self._echoed(number) + text, more | diffusion_meta(1.0)
        yield self._chunk(number, rest, end, **more)

    def finish(self, answers: list[dlm.Generation]) -> Iterator[bytes]:
        """The usage, where it was asked for."""
        if self._usage:
            yield frame({**self._head(), "choices": [], "usage": self._used(answers)})

    def _head(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._job.created,
            "model": self._job.service.name,
        }

    def _used(self, answers: list[dlm.Generation]) -> dict[str, Any]:
        """The usage; a suffix is no part of an answer."""
        own = [self._own(number, answer) for number, answer in enumerate(answers)]
        return usage(self._job, own)

    def _own(self, number: int, answer: dlm.Generation) -> dlm.Generation:
        """The answer as it is told: what fills the hole, where there is a suffix."""
        if not self._body.suffix:
            return answer
        infill = self._job.options[number // self._job.n]["infill"]
        length = next((at for at, token in enumerate(infill) if token is not None), len(infill))
        return in_hole(answer, length)

    def _whole(self, number: int, answer: dlm.Generation) -> dict[str, Any]:
        text, end = self._ended(number, answer)
        return {"index": number, "text": self._echoed(number) + text, **end}

    def _chunk(
        self, number: int, text: str, end: Mapping[str, Any] | None = None, **more: Any
    ) -> bytes:
        rest = end or {"logprobs": None, "finish_reason": None}
        told: dict[str, Any] = {"usage": None} if self._usage else {}
        choice = {"index": number, "text": text, **rest}
        return frame({**self._head(), "choices": [choice], **told, **more})

    def _echoed(self, number: int) -> str:
        """The text of a prompt, where it is to be repeated."""
        if not (isinstance(self._body, CompletionRequest) and self._body.echo):
            return ""
        given = self._body.prompt
        if isinstance(given, str):
            return given
        prompt = given[number // self._job.n] if given and not isinstance(given[0], int) else given
        if isinstance(prompt, str):
            return prompt
        text = self._job.service.text
        return "" if text is None else text.decode(self._job.prompts[number // self._job.n].ids)

    def _ended(self, number: int, answer: dlm.Generation) -> tuple[str, dict[str, Any]]:
        """The text of an answer without its prompt, and the fields of a choice that has ended."""
        own, ending = self._own(number, answer), Ending(self._job, self._body, answer)
        text = (own.text or "") if self._body.suffix else ending.text
        return text, ended_choice(self._body, own, ending, self._logprobs(number, own))

    def _logprobs(self, number: int, own: dlm.Generation) -> dict[str, Any] | None:
        """The log-probabilities of an answer, after those of its prompt where there are any."""
        if not isinstance(self._body, CompletionRequest) or self._body.logprobs is None:
            return None
        if not self._scores:
            return completion_logprobs(self._job, own)
        score, start = self._scores[number // self._job.n], len(self._echoed(number))
        return echoed_logprobs(self._job, self._body, number, own, score, start)
