"""Decisions over HTTP: bodies, and the options and the input of the engine made of them.

Two wire forms: OpenAI's `/v1/decisions`, and `/v1/systemone` of System One's API. Both take a
strict `dlm` object with the options of `Engine.decide`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field

import dlm
from dlm.serve.errors import ApiError, api_error
from dlm.serve.fields import MOST_MESSAGES, Body, EndpointBody, Ignored, Neutral, Strict, Text
from dlm.serve.parts import IMAGES, Parts, required, text_of, wrong
from dlm.serve.questions import SystemOneQuestion, WireQuestion

MOST_QUESTIONS: Final = 400


class Extension(Strict):
    """The `dlm` object: options of `Engine.decide`."""

    joint: bool | None = None
    rotations: int | None = None
    temperature: float | None = None
    scoring: str | None = None
    template: dict[str, Any] | None = None


class Item(Body):
    """One item of an input: a message, a call, or the output of a call."""

    type: str | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Text | Parts | None = None
    name: Annotated[str | None, Field(max_length=256)] = None
    call_id: Annotated[str | None, Field(max_length=256)] = None
    arguments: Text | None = None
    input: Text | None = None
    output: Text | Parts | None = None


class DecisionRequest(EndpointBody):
    """The body of `/v1/decisions`."""

    model: Annotated[str | None, Field(max_length=256)] = None
    input: Text | Annotated[list[Item], Field(min_length=1, max_length=MOST_MESSAGES)]
    questions: Annotated[list[WireQuestion], Field(min_length=1, max_length=MOST_QUESTIONS)]
    prompt_cache_key: Annotated[Any, Ignored("prefixes are shared by their tokens")] = None
    prompt_cache_options: Annotated[Any, Ignored("prefixes are shared by their tokens")] = None
    safety_identifier: Annotated[Any, Ignored()] = None
    dlm: Extension | None = None


class SystemOneRequest(EndpointBody):
    """The body of `/v1/systemone`."""

    model: Annotated[str | None, Field(max_length=256)] = None
    state: Text | dict[str, Any] | list[Any]
    questions: Annotated[
        dict[str, SystemOneQuestion], Field(min_length=1, max_length=MOST_QUESTIONS)
    ]
    assets: Annotated[Any, Neutral(({},), IMAGES)] = None
    dlm: Extension | None = None


# from bodies to the engine


def options_of(extension: Extension | None) -> dlm.DecisionOptions:
    """The options of a `dlm` object. Raises `ApiError` 400 that names the field."""
    given = {} if extension is None else extension.model_dump(exclude_none=True)
    try:
        return dlm.DecisionOptions.from_options(given)
    except dlm.InvalidRequest as error:
        raise decision_error(error) from error


def decision_error(error: Exception, ids: Sequence[str] | None = None) -> ApiError:
    """The answer to an exception of the engine, with the field of the body.

    ids: keys of the questions of a System One body, in order
    """
    param = error.param if isinstance(error, dlm.InvalidRequest) else ""
    head, bracket, rest = param.partition("[")
    name = param
    if param.partition(".")[0] in Extension.model_fields:
        name = f"dlm.{param}"
    elif ids is not None and head == "questions" and bracket:
        number, _, field = rest.partition("]")
        inner = field.removeprefix(".").partition("[")[0].partition(".")[0]
        own = {"": "", "name": "", "instructions": ".instructions"}
        shown = own.get(inner, ".criteria")
        name = f"questions.{ids[int(number)]}{shown}"
    elif ids is not None and head == "input":
        name = "state"
    return api_error(error, {param: name})


def input_of(given: str | Sequence[Item]) -> str | list[dict[str, str]]:
    """The input of a body as a text or messages; calls and their outputs are told as such.

    Raises `ApiError` 400 for what is no text.
    """
    if isinstance(given, str):
        return given
    found, calls = [], dict[str, str]()
    for number, item in enumerate(given):
        where, kind = f"input[{number}]", item.type or "message"
        if kind == "message":
            content = text_of(f"{where}.content", item.content)
            role = required(f"{where}.role", item.role)
        elif kind in ("function_call", "custom_tool_call"):
            field = "arguments" if kind == "function_call" else "input"
            name = required(f"{where}.name", item.name)
            calls[required(f"{where}.call_id", item.call_id)] = name
            content = required(f"{where}.{field}", getattr(item, field))
            role = f"assistant called {name}"
        elif kind in ("function_call_output", "custom_tool_call_output"):
            call = required(f"{where}.call_id", item.call_id)
            if call not in calls:
                rule = "must be that of a call before it"
                raise wrong(f"{where}.call_id", f"{rule}, got {call[:80]!r}")
            content, role = text_of(f"{where}.output", item.output), f"{calls[call]} returned"
        else:
            raise wrong(f"{where}.type", f"must be a message, a call or its output, got {kind!r}")
        found.append({"role": role, "content": content})
    return found
