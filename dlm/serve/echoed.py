"""Completions that repeat their prompts with log-probabilities: `echo` beside `logprobs`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from fastapi import Request

import dlm
from dlm.serve.answers import completion_logprobs, token_pieces
from dlm.serve.errors import api_error, refused
from dlm.serve.facts import facts
from dlm.serve.jobs import Job, unless_gone
from dlm.serve.lengths import too_long
from dlm.serve.options import Asked
from dlm.serve.prompts import Prompt
from dlm.serve.schemas import CompletionRequest
from dlm.serve.service import Service

NOTHING = dlm.Stats(0, 0, 0, 0, 0, {}, {}, {}, 0.0)
"""The costs of an answer that was not asked for."""
PARTS = ("prompt", "answer")
"""The parts of a pair that the engine scores: here both are of one prompt."""


@dataclass(frozen=True, slots=True)
class Echo:
    """The wish of a body for its prompts with, or without, log-probabilities.

    alternatives: most likely tokens told with each token (None: no log-probabilities)
    answers: the prompts are continued, too
    """

    alternatives: int | None
    answers: bool

    @classmethod
    def of(cls, body: CompletionRequest) -> Echo | None:
        """The wish of a body; None where it is for answers alone, or for nothing but texts.

        Raises `ApiError` 400 for fields that do not go together.
        """
        if body.max_tokens == 0 and not body.echo:
            rule = "must be at least 1, or 0 beside `echo: true`: then nothing is generated"
            raise refused("max_tokens", f"`max_tokens` {rule}")
        if not body.echo or (body.logprobs is None and body.max_tokens != 0):
            return None
        rule = "does not go with `echo` and `logprobs`, or with `max_tokens: 0`: they give"
        for field in ("stream", "diffusing"):
            if getattr(body, field):
                told = f"`{field}` {rule} a whole body"
                raise refused(field, told, "unsupported_parameter")
        if body.suffix:
            told = f"`suffix` {rule} log-probabilities of texts that nothing follows"
            raise refused("suffix", told, "unsupported_parameter")
        return cls(body.logprobs, body.max_tokens != 0)

    def check_places(self, service: Service, prompts: int, answers: int) -> None:
        """Raise `ApiError` 400 for a body that needs more places than there are: waiting would not
        help. Each prompt takes one, and each answer.
        """
        rows, most = prompts + answers * self.answers, service.places.most
        if rows > most:
            told = f"asks for {rows} texts, of which this server holds at most {most} at a time"
            raise refused("prompt", f"`prompt` {told}")

    async def scoring(self, service: Service, prompts: Sequence[Prompt]) -> dlm.ScoringJob | None:
        """The job that scores the prompts; None without log-probabilities. Raises `ApiError`."""
        names = [f"prompt[{n}]" if len(prompts) > 1 else "prompt" for n in range(len(prompts))]
        for name, prompt in zip(names, prompts, strict=True):
            if len(prompt.ids) > service.max_length:
                raise too_long(service, name, f"{len(prompt.ids)} tokens")
        if self.alternatives is None:
            return None
        first = int(service.info.shift)  # tokens that nothing predicts
        pairs = [(prompt.ids[:first], prompt.ids[first:]) for prompt in prompts]
        asked = pairs, dlm.ScoringOptions(top_logprobs=self.alternatives), service.max_length
        try:
            return await asyncio.to_thread(service.engine.engine.prepare_scores, *asked)
        except Exception as error:
            pieces = [f"pairs[{n}].{part}" for n in range(len(prompts)) for part in PARTS]
            wide = [name for name in names for _ in PARTS]
            fields = {"model": "echo", **dict.fromkeys(PARTS, "prompt")}
            raise api_error(error, fields | dict(zip(pieces, wide, strict=True))) from error


async def echoed(
    request: Request, job: Job, scoring: dlm.ScoringJob | None
) -> tuple[list[dlm.Generation], list[dlm.LogLikelihood]]:
    """The answers of a job (empty ones where it was not started) and the log-likelihoods of its
    prompts. Raises as `unless_gone`.
    """
    found = await unless_gone(request, job, _work(job, scoring))
    facts(request.scope).nfe = sum(answer.stats.nfe for answer in found[0]) + _nfe(found[1])
    return found


async def _work(
    job: Job, scoring: dlm.ScoringJob | None
) -> tuple[list[dlm.Generation], list[dlm.LogLikelihood]]:
    answers = await job.results() or [
        dlm.Generation("", (), "length", NOTHING, tuple(prompt.ids), tuple(prompt.ids), ())
        for prompt in job.prompts
        for _ in range(job.n)
    ]
    if scoring is None:
        return answers, []
    try:
        scores = await job.service.engine.run_scores(scoring)
    except Exception as error:
        job.service.metrics.failed()
        raise api_error(error) from error
    job.service.metrics.computed("score", _nfe(scores))
    return answers, scores


def unanswered(service: Service, asked: Asked, prompts: Sequence[Prompt]) -> Job:
    """A job of prompts that are not to be continued; it is not started."""
    service.check_open()
    for prompt in prompts:
        service.metrics.accepted("completions", len(prompt.ids), 0, 0)
    return Job(service, prompts, [asked.options] * len(prompts), asked.names)


def prompt_costs(scores: Sequence[dlm.LogLikelihood]) -> dict[str, int]:
    """The costs of the log-probabilities of all prompts, for the `dlm` object."""
    return {"prompt_nfe": _nfe(scores)} if scores else {}


def _nfe(scores: Sequence[dlm.LogLikelihood]) -> int:
    return sum(score.nfe for score in scores)


def echoed_logprobs(
    job: Job,
    body: CompletionRequest,
    number: int,
    answer: dlm.Generation,
    score: dlm.LogLikelihood,
    start: int,
) -> dict[str, Any]:
    """The log-probabilities of a prompt and its answer in the form of completions.

    start: characters of the prompt. An end id that ended the answer is a token of it, without text
    and log-probability: whoever asks for one token gets one.
    """
    ids, own = job.prompts[number // job.n].ids, completion_logprobs(job, answer, start)
    blind = [None] * (len(ids) - len(score.tokens))  # nothing predicts them
    pieces = token_pieces(job, ids)
    ended = [None] * _has_end_id(job, body, answer)
    written = sum(map(len, own["tokens"]))
    top: list[Any] | None = None
    if body.logprobs:
        top = [*blind, *_alternatives(job, score), *(own["top_logprobs"] or []), *ended]
    return {
        "tokens": [*pieces, *own["tokens"], *("" for _ in ended)],
        "token_logprobs": [*blind, *score.logprobs, *own["token_logprobs"], *ended],
        "top_logprobs": top,
        "text_offset": [*_offsets(pieces), *own["text_offset"], *(start + written for _ in ended)],
        "steps": [*[0] * len(ids), *own["steps"], *ended],
    }


def _has_end_id(job: Job, body: CompletionRequest, answer: dlm.Generation) -> bool:
    """True if an end id ended the answer; it is no part of `answer.ids`."""
    at = len(answer.prompt_ids) + len(answer.ids)
    ends = {*job.service.info.eos_ids, *(body.stop_token_ids or ())}
    return answer.finish_reason == "stop" and at < len(answer.canvas) and answer.canvas[at] in ends


def _alternatives(job: Job, score: dlm.LogLikelihood) -> Iterator[dict[str, float]]:
    """The most likely tokens at each position by their texts, and the one that stands there."""
    name = job.service.token_text
    for token, logprob, best in zip(score.tokens, score.logprobs, score.top, strict=True):
        yield {**{name(other): value for other, value in best}, name(token): logprob}


def _offsets(pieces: Sequence[str]) -> list[int]:
    """The characters before each piece."""
    return list(accumulate(map(len, pieces), initial=0))[:-1]
