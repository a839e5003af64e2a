"""The steps that all endpoints share which generate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from dlm.serve.answers import dumps
from dlm.serve.endpoints import check_own_fields
from dlm.serve.errors import api_error, refused
from dlm.serve.fields import Body, Sampling, check_supported
from dlm.serve.jobs import ClientGone, Job, unless_gone
from dlm.serve.lengths import check_prompt, new_tokens, too_long
from dlm.serve.options import Asked, asked_of, length_field
from dlm.serve.prompts import Prompt
from dlm.serve.schemas import ResponseFormat
from dlm.serve.searches import SearchJob, SearchStreaming
from dlm.serve.service import Service
from dlm.serve.streams import EventStream, Shape, Streaming


def service_of(request: Request) -> Service:
    """The service of the app that a request came to."""
    service: Service = request.app.state.service
    return service


def json_response(body: Mapping[str, Any]) -> Response:
    """A body as a response."""
    return Response(dumps(body), 200, media_type="application/json")


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of work that would hold up the event loop, such as tokenizing.

    Raises `ApiError` for the errors of the engine.
    """
    try:
        return await asyncio.to_thread(function, *arguments)
    except Exception as error:
        raise api_error(error) from error


def service_for(request: Request, body: Body, model: str | None) -> Service:
    """The service for a body that asks for `model`. Raises `ApiError`: 503 while no requests are
    taken, 404 for a model that is not served, 400 for a field that cannot be honoured
    or is one of another endpoint.
    """
    service = service_of(request)
    service.check_open()
    service.check_model(model)
    check_supported(body)
    check_own_fields(body)
    return service


def opened(request: Request, body: Sampling) -> tuple[Service, Asked]:
    """The service for a body of an endpoint that generates, and the wishes of the body.

    Raises `ApiError` as `service_for`, and 400 for options that are wrong or do not go together.
    """
    service = service_for(request, body, body.model)
    asked = asked_of(body, service.info, service.settings.defaults)
    _check_streaming(service, body, asked)
    return service, asked


def check_format(param: str, form: ResponseFormat | None) -> None:
    """Raise `ApiError` 400 for an answer in another form than text."""
    if form is not None and form.type != "text":
        rule = "must be {'type': 'text'}: a grammar needs tokens in their order"
        raise refused(param, f"`{param}` {rule}", "unsupported_parameter")


def _check_streaming(service: Service, body: Sampling, asked: Asked) -> None:
    """Raise `ApiError` 400 for fields about streams that do not go together, and for a stream of
    text where there is no tokenizer.
    """
    streams = body.stream or body.diffusing
    if streams:
        service.require_text("stream")
    if body.stream_options is not None and not streams:
        raise refused("stream_options", "`stream_options` needs `stream: true`")
    if asked.events and not body.stream:
        raise refused("dlm.events", "`dlm.events` needs `stream: true`")
    if asked.events and body.diffusing:
        raise refused("diffusing", "`diffusing` and `dlm.events` are two forms of a stream")
    if body.diffusing and body.stream is False:
        raise refused("diffusing", "`diffusing` is a form of a stream, and `stream` is false")


def options_for(
    service: Service, body: Sampling, asked: Asked, prompt: Prompt, default: int, after: int = 0
) -> dict[str, Any]:
    """The options of one prompt, with its length. Raises `ApiError` 400.

    default: new tokens where the body names no number
    after: tokens of a suffix
    """
    check_prompt(service, prompt)
    field, given = length_field(body)
    options = dict(asked.options)
    for name in ("infill", "start"):
        for text in _texts(options.get(name)):
            service.check_size(f"dlm.{name}", text)
    if given is not None or not _sets_length(asked.given.get("infill")):
        default = int(options.get("max_new_tokens", default))
        length = new_tokens(service, body, prompt, default, after)
        if body.min_tokens and body.min_tokens > length:
            told = f"must be at most the {length} tokens of `{field}`, got {body.min_tokens}"
            raise refused("min_tokens", f"`min_tokens` {told}")
        options["max_new_tokens"] = length
    return options


def _texts(infill: Any) -> Iterator[str]:
    """The texts of a template."""
    if isinstance(infill, str):
        yield infill
    elif isinstance(infill, Mapping):
        for part in infill.values():
            yield from _texts(part)


def _sets_length(infill: Any) -> bool:
    """True if a template tells the length of the answer by itself."""
    return isinstance(infill, str | list | tuple)


async def started(
    service: Service,
    body: Sampling,
    asked: Asked,
    prompts: list[Prompt],
    options: list[dict[str, Any]],
    route: str,
) -> Job:
    """A job whose prompts are all queued. Raises `ApiError`."""
    rows, most = len(prompts) * int(options[0].get("n", 1)), service.places.most
    if rows > most:  # waiting would not help
        param = "n" if rows > len(prompts) else "prompt"
        told = f"asks for {rows} answers, of which this server holds at most {most} at a time"
        raise refused(param, f"`{param}` {told}")
    field, given = length_field(body)
    if given is None and _sets_length(asked.given.get("infill")):
        field = "dlm.infill"
    job = _job(service, asked, prompts, options, {**asked.names, "max_new_tokens": field})
    await job.start()
    await _check_templates(job)
    for prompt, own in zip(prompts, options, strict=True):
        most = int(own.get("max_new_tokens") or 0)
        service.metrics.accepted(route, len(prompt.ids), job.n, most)
    return job


def _job(
    service: Service,
    asked: Asked,
    prompts: list[Prompt],
    options: list[dict[str, Any]],
    names: Mapping[str, str],
) -> Job:
    """The job of a body. Raises `ApiError` 400 for a search of several prompts, and for one that
    asks for more than this server allows.
    """
    if asked.search is None:
        return Job(service, prompts, options, names, events=asked.events)
    if len(prompts) > 1:
        raise refused("prompt", f"`prompt` must be one beside `dlm.search`, got {len(prompts)}")
    return SearchJob(service, prompts[0], options[0], names, asked.search, events=asked.events)


async def _check_templates(job: Job) -> None:
    """End a job whose template, which tells its length by itself, is too long for this server.

    The engine knows the model's bound alone. Raises `ApiError` 400.
    """
    for prompt, length in zip(job.prompts, job.lengths, strict=True):
        if length > job.service.max_length:
            await job.close()
            told = f"a prompt of {len(prompt.ids)} tokens and the {length - len(prompt.ids)} of it"
            raise too_long(job.service, "dlm.infill", told)


async def answered(
    request: Request, body: Sampling, job: Job, shape: Shape, *, hole: bool = False
) -> Response:
    """The answers of a job: a stream where the body asks for one, else a whole body; none where the
    client has left.

    hole: a stream has the text of the first hole alone
    """
    if (body.stream or body.diffusing) and isinstance(job, SearchJob):
        found = SearchStreaming(job, shape, diffusing=bool(body.diffusing))
        return EventStream(job, found.frames())
    if body.stream or body.diffusing:
        streaming = Streaming(job, shape, diffusing=bool(body.diffusing), hole=hole)
        return EventStream(job, streaming.frames())
    try:
        return json_response(shape.whole(await unless_gone(request, job, job.results())))
    except ClientGone:
        return Response(status_code=499)
