"""From generations to the bodies of responses."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import dlm
from dlm.serve.fields import Sampling
from dlm.serve.jobs import Job


def dumps(body: Mapping[str, Any]) -> bytes:
    """A body as UTF-8 JSON without spaces; numbers that JSON lacks must not be in it."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def new_id(prefix: str) -> str:
    """A name for a response."""
    return f"{prefix}-{secrets.token_hex(12)}"


def finish_reason(answer: dlm.Generation) -> str:
    """OpenAI's reason: `stop` for an answer that is complete, else `length`.

    The engine's own reason stands in the `dlm` object.
    """
    return "stop" if answer.finish_reason == "stop" else "length"


class Ending:
    """The end of an answer: the stop string or id that ended it, and its text with that string."""

    def __init__(self, job: Job, body: Sampling, answer: dlm.Generation) -> None:
        self.text = answer.text or ""
        self.reason: str | int | None = None
        at = len(answer.prompt_ids) + len(answer.ids)
        if answer.finish_reason != "stop":
            return
        after = self._cut_text(job, answer)
        found = [text for text in job.stop_texts if after.startswith(text)]
        if found:
            self.reason = max(found, key=len)
            self.text += self.reason if body.include_stop_str_in_output else ""
        elif at < len(answer.canvas) and answer.canvas[at] in (body.stop_token_ids or ()):
            self.reason = answer.canvas[at]

    @staticmethod
    def _cut_text(job: Job, answer: dlm.Generation) -> str:
        """The text on the canvas after the end of the answer's own."""
        text = job.service.text
        if text is None:
            return ""
        whole = text.decode(answer.canvas[len(answer.prompt_ids) :])
        return whole[len(answer.text or "") :]


def ended_choice(
    body: Sampling, answer: dlm.Generation, ending: Ending, logprobs: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The fields of a choice that has ended, beside its text."""
    end: dict[str, Any] = {
        "finish_reason": finish_reason(answer),
        "stop_reason": ending.reason,
        "logprobs": logprobs,
    }
    return end | (token_fields(answer) if body.return_token_ids else {})


def diffusion_meta(progress: float) -> dict[str, Any]:
    """The mark of a chunk that holds a whole text, in the form of Inception's API."""
    return {"diffusion_meta": {"diffusion_content": True, "diffusion_progress": progress}}


def usage(job: Job, answers: Sequence[dlm.Generation]) -> dict[str, Any]:
    """The tokens of a request: of each prompt once, and of all answers."""
    prompt = sum(len(prompt.ids) for prompt in job.prompts)
    completion = sum(len(answer.ids) for answer in answers)
    cached = sum(answer.stats.reused for answer in answers[:: job.n])
    searches = [dict(answer.search) for answer in answers if answer.search is not None]
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": 0},
        **({"search": searches[0]} if searches else {}),
    }


def costs(job: Job, answers: Sequence[dlm.Generation]) -> dict[str, Any]:
    """The `dlm` object of a response: of the first answer, and of all where they are several."""
    told = [_cost(answer) for answer in answers]
    body = {**told[0], "seed": job.seed}
    if len(told) > 1:
        body["choices"] = told
    if warnings := [text for prompt in job.prompts for text in prompt.warnings]:
        body["warnings"] = warnings
    return body


def _cost(answer: dlm.Generation) -> dict[str, Any]:
    stats = answer.stats
    body: dict[str, Any] = {
        "finish_reason": answer.finish_reason,
        "nfe": stats.nfe,
        "token_forwards": stats.token_forwards,
        "tokens_per_forward": round(stats.tokens_per_forward, 4),
        "seconds": round(stats.seconds, 6),
        "forwards": dict(stats.forwards),
        "changes": dict(stats.changes),
    }
    if answer.search is not None:
        body |= _of_search(answer.search, stats.tokens)
    if answer.holes:
        body["holes"] = list(answer.holes)
    if answer.trace:
        body["trace"] = [event.to_json() for event in answer.trace]
    return body


def _of_search(found: Mapping[str, Any], tokens: int) -> dict[str, Any]:
    """The costs of a search in place of those of its best row, and its summary."""
    return {
        "nfe": found["nfe"],
        "token_forwards": found["token_forwards"],
        "tokens_per_forward": round(tokens / found["nfe"], 4) if found["nfe"] else 0.0,
        "seconds": round(found["seconds"], 6),
        "search": dict(found),
    }


def token_fields(answer: dlm.Generation) -> dict[str, Any]:
    """The ids of an answer, with the step and the log-probabilities of each commit."""
    return {
        "prompt_token_ids": list(answer.prompt_ids),
        "token_ids": list(answer.ids),
        "commit_steps": list(answer.commit_steps),
        "token_logprobs": [_number(value) for value in answer.logprobs],
        "proposal_logprobs": [_number(value) for value in answer.proposal_logprobs],
    }


def _number(value: float) -> float | None:
    """A log-probability; null for a token that was given."""
    return value if math.isfinite(value) else None


def in_hole(answer: dlm.Generation, length: int) -> dlm.Generation:
    """The part of an answer that fills a hole of so many tokens at its beginning."""
    part = slice(length)
    return replace(
        answer,
        text=answer.holes[0] if answer.holes else "",
        ids=answer.ids[part],
        logprobs=answer.logprobs[part],
        proposal_logprobs=answer.proposal_logprobs[part],
        commit_steps=answer.commit_steps[part],
        top_logprobs=answer.top_logprobs[part],
    )


def pieces(job: Job, answer: dlm.Generation) -> list[str]:
    """The text that each token of an answer completes; together they are the answer's text.

    Tokens in the middle of a character have none; a stop string cuts the last ones.
    """
    found = token_pieces(job, answer.ids, inside=bool(answer.holes))
    room = len(answer.text or "")
    for index, piece in enumerate(found):
        found[index] = piece[:room]
        room -= len(found[index])
    return found


def token_pieces(job: Job, ids: Sequence[int], *, inside: bool = False) -> list[str]:
    """The text that each token completes; control tokens, and all without a tokenizer, have none.

    inside: the ids go on with a text
    """
    text = job.service.text
    if text is None:
        return [""] * len(ids)
    decoder = dlm.IncrementalDecoder(text, inside=inside)
    found = [decoder.feed([token]) for token in ids]
    if found:
        found[-1] += decoder.finish()
    return found


def chat_logprobs(job: Job, answer: dlm.Generation) -> dict[str, Any]:
    """Log-probabilities in the form of chat completions, each with the step of its commit."""
    content = [
        {**_entry(piece, value), "step": step, "top_logprobs": list(_alternatives(job, best))}
        for piece, value, step, best in _tokens(job, answer)
    ]
    return {"content": content, "refusal": None}


def _tokens(job: Job, answer: dlm.Generation) -> Iterator[tuple[str, float, int, Any]]:
    best = answer.top_logprobs or ((),) * len(answer.ids)
    columns = (pieces(job, answer), answer.logprobs, answer.commit_steps, best)
    return zip(*columns, strict=True)


def _entry(piece: str, value: float) -> dict[str, Any]:
    known = value if math.isfinite(value) else 0.0
    return {"token": piece, "logprob": known, "bytes": list(piece.encode())}


def _alternatives(job: Job, best: Sequence[tuple[int, float]]) -> Iterator[dict[str, Any]]:
    for token, value in best:
        yield _entry(job.service.token_text(token), value)


def completion_logprobs(job: Job, answer: dlm.Generation, start: int = 0) -> dict[str, Any]:
    """Log-probabilities in the form of completions.

    start: characters before the answer (with `echo`, those of the prompt)
    """
    tokens, offsets, top = [], [], []
    for piece, _, _, best in _tokens(job, answer):
        tokens.append(piece)
        offsets.append(start)
        start += len(piece)
        top.append({entry["token"]: entry["logprob"] for entry in _alternatives(job, best)})
    return {
        "tokens": tokens,
        "token_logprobs": [_number(value) for value in answer.logprobs],
        "top_logprobs": top if answer.top_logprobs else None,
        "text_offset": offsets,
        "steps": list(answer.commit_steps),
    }
