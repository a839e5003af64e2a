"""The new tokens of an answer, and the fields to blame where a canvas is too short."""

from __future__ import annotations

from dlm.serve.errors import ApiError, refused
from dlm.serve.fields import Sampling
from dlm.serve.options import length_field
from dlm.serve.prompts import Prompt
from dlm.serve.service import Service


def new_tokens(service: Service, body: Sampling, prompt: Prompt, default: int, after: int) -> int:
    """The new tokens of the answer to a prompt. Raises `ApiError` 400 that names the field at
    fault: the suffix where it takes all the room, else the one that bounds the answer.

    default: new tokens where the body names no number, as far as there is room
    after: tokens of a suffix
    """
    field, given = length_field(body)
    around = f"a prompt of {len(prompt.ids)} tokens" + (f", a suffix of {after}" if after else "")
    room = service.max_length - len(prompt.ids) - after
    if room < 1:
        raise too_long(service, "suffix", f"{around} and 1 new one")
    length = min(default, room) if given is None else given
    if length > room:
        raise too_long(service, field, f"{around} and {length} new ones")
    return length


def check_prompt(service: Service, prompt: Prompt) -> None:
    """Raise `ApiError` 400 for a prompt that leaves no room for an answer."""
    if len(prompt.ids) >= service.max_length:
        raise too_long(service, prompt.field, f"a prompt of {len(prompt.ids)} tokens and 1 new one")


def too_long(service: Service, param: str, told: str) -> ApiError:
    """The error 400 for the field because of which a canvas would be too long."""
    own = service.settings.max_canvas
    bound = " (`--max-canvas` of this server)" if own and own < service.info.max_length else ""
    rule = f"are more than the {service.max_length} positions of a canvas{bound}"
    return refused(param, f"`{param}`: {told} {rule}", "context_length_exceeded")
