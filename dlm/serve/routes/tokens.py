"""`/tokenize`, `/detokenize`, `/tokenizer_info`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from dlm.serve.bodies import JsonRoute
from dlm.serve.errors import refused
from dlm.serve.prompts import chat_prompt, messages_of
from dlm.serve.routes.common import in_thread, json_response, service_for, service_of
from dlm.serve.schemas import DetokenizeRequest, TokenizeRequest
from dlm.serve.service import Service

router = APIRouter(route_class=JsonRoute)

MOST_CANVASES: Final = 16
"""Canvases that a text to be tokenized may fill, as far as its characters tell."""


@router.post("/tokenize")
@router.post("/v1/tokenize")
async def tokenize(request: Request, body: TokenizeRequest) -> Response:
    """The ids of a text, or of messages through the chat template."""
    service = service_for(request, body, body.model)
    if (body.prompt is None) == (body.messages is None):
        raise refused("prompt", "`prompt` or `messages` must be given, and not both")
    ids = await in_thread(_ids, service, body)
    told: dict[str, Any] = {"count": len(ids), "max_model_len": service.max_length, "tokens": ids}
    if body.return_token_strs:
        told["token_strs"] = [service.require_text().decode_inside([token]) for token in ids]
    return json_response(told)


def _ids(service: Service, body: TokenizeRequest) -> list[int]:
    text = service.require_text()
    if body.messages is not None:
        return list(chat_prompt(service, messages_of(body.messages)).ids)
    assert body.prompt is not None
    service.check_size("prompt", body.prompt, MOST_CANVASES)
    if body.add_special_tokens is False:  # by a caller who has applied the template
        return text.vocabulary.encode(body.prompt, control=True, begin=False)
    return text.encode_prompt(body.prompt, chat=False)


@router.post("/detokenize")
@router.post("/v1/detokenize")
async def detokenize(request: Request, body: DetokenizeRequest) -> Response:
    """The text of ids; control tokens have none."""
    service = service_for(request, body, body.model)
    text = service.require_text()
    size = service.info.vocab_size
    for index, token in enumerate(body.tokens):
        if not 0 <= token < size:
            param = f"tokens[{index}]"
            raise refused(param, f"`{param}`: must be between 0 and {size - 1}, got {token}")
    return json_response({"prompt": await in_thread(text.decode, body.tokens)})


@router.get("/tokenizer_info")
@router.get("/v1/tokenizer_info")
async def tokenizer_info(request: Request) -> Response:
    """Names of the tokenizer's control tokens, and its chat template."""
    service = service_of(request)
    vocabulary = service.require_text().vocabulary
    names = {token: name for name, token in vocabulary.control.items()}
    info = service.info
    told: dict[str, Any] = {name: str(value) for name, value in vocabulary.variables.items()}
    told["eos_token"] = names.get(info.eos_ids[0]) if info.eos_ids else None
    told["eos_token_id"] = info.eos_ids[0] if info.eos_ids else None
    told |= {"mask_token_id": info.mask_id, "vocab_size": info.vocab_size}
    return json_response(
        {**told, "chat_template": _template(vocabulary.template, vocabulary.variables)}
    )


def _template(template: str | None, variables: Mapping[str, Any]) -> str | None:
    """The chat template with its variables set: clients render it with the messages alone."""
    if template is None:
        return None
    used = {name: value for name, value in variables.items() if name in template}
    sets = (f"{{%- set {name} = {json.dumps(str(value))} -%}}" for name, value in used.items())
    return "".join(sets) + template
