"""Decisions over HTTP: bodies to questions of the engine, its answers to bodies.

Two wire forms: OpenAI's `/v1/decisions`, and `/v1/systemone` of System One's API. Both take a
strict `dlm` object with the options of `Engine.decide`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field

import dlm
from dlm.serve.errors import ApiError, api_error, refused
from dlm.serve.fields import MOST_MESSAGES, Body, Ignored, Neutral, Strict, Text
from dlm.serve.schemas import MOST_PARTS

T = TypeVar("T")

MOST_QUESTIONS: Final = 400
MOST_CHOICES: Final = 255
MOST_LEVELS: Final = 10
MOST_JSON: Final = 256 * 1024
MOST_VALUES: Final = 10_000
MOST_NESTED: Final = 32
"""Bytes, values and nested containers of a JSON part, as OpenAI bounds them."""
IMAGES: Final = "images are not supported: text alone is understood"


class Extension(Strict):
    """The `dlm` object: options of `Engine.decide`."""

    joint: bool | None = None
    rotations: int | None = None
    temperature: float | None = None
    scoring: str | None = None
    template: dict[str, Any] | None = None


class Part(Body):
    """A part of a message or of instructions: text or JSON."""

    type: str
    text: Text | None = None
    data: dict[str, Any] | list[dict[str, Any]] | None = None
    refusal: Text | None = None


Parts = Annotated[list[Part], Field(max_length=MOST_PARTS)]


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


class WireOption(Body):
    """One of the choices of a question."""

    value: Text | bool
    description: Text | None = None


class WireLevel(Body):
    """One of the levels of a score."""

    label: Text
    description: Text | None = None


class WireQuestion(Body):
    """A question of `/v1/decisions`."""

    type: Literal["predicate", "choice", "score"]
    name: Annotated[str | None, Field(max_length=256)] = None
    instructions: Text | Parts
    choices: Annotated[list[WireOption] | None, Field(max_length=MOST_CHOICES)] = None
    levels: Annotated[list[WireLevel] | None, Field(max_length=MOST_LEVELS)] = None


class DecisionRequest(Body):
    """The body of `/v1/decisions`."""

    model: Annotated[str | None, Field(max_length=256)] = None
    input: Text | Annotated[list[Item], Field(min_length=1, max_length=MOST_MESSAGES)]
    questions: Annotated[list[WireQuestion], Field(min_length=1, max_length=MOST_QUESTIONS)]
    prompt_cache_key: Annotated[Any, Ignored("prefixes are shared by their tokens")] = None
    prompt_cache_options: Annotated[Any, Ignored("prefixes are shared by their tokens")] = None
    safety_identifier: Annotated[Any, Ignored()] = None
    dlm: Extension | None = None


class SystemOneQuestion(Body):
    """A question of `/v1/systemone`."""

    type: Literal["noul", "choice", "score"]
    instructions: Text | dict[str, Any] | list[Any] | None = None
    criteria: dict[str, Any] | Annotated[list[Any], Field(max_length=MOST_LEVELS)] | None = None


class SystemOneRequest(Body):
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
            content = _text(f"{where}.content", item.content)
            role = _required(f"{where}.role", item.role)
        elif kind in ("function_call", "custom_tool_call"):
            field = "arguments" if kind == "function_call" else "input"
            name = _required(f"{where}.name", item.name)
            calls[_required(f"{where}.call_id", item.call_id)] = name
            content = _required(f"{where}.{field}", getattr(item, field))
            role = f"assistant called {name}"
        elif kind in ("function_call_output", "custom_tool_call_output"):
            call = _required(f"{where}.call_id", item.call_id)
            if call not in calls:
                rule = "must be that of a call before it"
                raise _wrong(f"{where}.call_id", f"{rule}, got {call[:80]!r}")
            content, role = _text(f"{where}.output", item.output), f"{calls[call]} returned"
        else:
            raise _wrong(f"{where}.type", f"must be a message, a call or its output, got {kind!r}")
        found.append({"role": role, "content": content})
    return found


def questions_of(given: Sequence[WireQuestion]) -> list[dlm.Question]:
    """The questions of `/v1/decisions`. Raises `ApiError` 400 for parts that are no text."""
    found: list[dlm.Question] = []
    for number, question in enumerate(given):
        where = f"questions[{number}]"
        instructions = _text(f"{where}.instructions", question.instructions)
        if question.type == "predicate":
            found.append(dlm.Predicate(question.name, instructions))
        elif question.type == "choice":
            choices = _required(f"{where}.choices", question.choices)
            options = [dlm.Option(one.value, one.description) for one in choices]
            found.append(dlm.Choice(question.name, instructions, options))
        else:
            levels = _required(f"{where}.levels", question.levels)
            scale = [dlm.Level(one.label, one.description) for one in levels]
            found.append(dlm.Score(question.name, instructions, scale))
    return found


def system_one_questions(given: Mapping[str, SystemOneQuestion]) -> list[dlm.Question]:
    """The questions of `/v1/systemone`. Raises `ApiError` 400 for criteria of a wrong form."""
    return [_system_one_question(name, question) for name, question in given.items()]


def _system_one_question(name: str, question: SystemOneQuestion) -> dlm.Question:
    where, criteria = f"questions.{name}.criteria", question.criteria
    instructions = as_text(f"questions.{name}.instructions", question.instructions)
    if question.type == "score":
        if not isinstance(criteria, list):
            raise _wrong(where, "must be a list of levels, from the lowest")
        levels = [dlm.Level(as_text(where, level)) for level in criteria]
        return dlm.Score(name, instructions, levels)
    if not isinstance(criteria, dict | None) or (criteria is None and question.type == "choice"):
        raise _wrong(where, "must map options to descriptions")
    described = {key: as_text(where, text) or None for key, text in (criteria or {}).items()}
    if question.type == "choice":
        options = [dlm.Option(key, text) for key, text in described.items()]
        return dlm.Choice(name, instructions, options)
    if unknown := described.keys() - {"true", "false"}:
        raise _wrong(where, f"describes 'true' and 'false', got {min(unknown)[:80]!r}")
    return dlm.Predicate(name, instructions, described.get("true"), described.get("false"))


def as_text(where: str, value: Any) -> str:
    """A text as it is, other JSON as JSON, None as nothing. Raises `ApiError` 400."""
    if value is None:
        return ""
    try:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except RecursionError as error:
        raise _wrong(where, "is nested too deeply") from error


def _text(where: str, content: str | Sequence[Part] | None) -> str:
    """The text of a content or of its parts. Raises `ApiError` 400 for other parts."""
    if content is None or isinstance(content, str):
        return _required(where, content)
    return "\n".join(_part(f"{where}[{number}]", part) for number, part in enumerate(content))


def _part(where: str, part: Part) -> str:
    if part.type in ("input_text", "output_text", "text"):
        return _required(f"{where}.text", part.text)
    if part.type == "refusal":
        return _required(f"{where}.refusal", part.refusal)
    if part.type == "input_json":
        data = _required(f"{where}.data", part.data)
        _check_json(f"{where}.data", data)
        return as_text(f"{where}.data", data)
    rule = IMAGES if part.type == "input_image" else f"is of the unknown type {part.type[:40]!r}"
    raise refused(where, f"`{where}`: {rule}", "unsupported_parameter")


def _check_json(where: str, data: Any) -> None:
    """Raise `ApiError` 400 for JSON beyond OpenAI's bounds."""
    count, level = 0, [data]
    for _ in range(MOST_NESTED + 1):
        count += len(level)
        level = [inner for value in level for inner in _inner(value)]
        if not level:
            break
    size = len(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode())
    if level or count > MOST_VALUES or size > MOST_JSON:
        rule = f"at most {MOST_NESTED} levels, {MOST_VALUES} values and {MOST_JSON} bytes"
        raise _wrong(where, f"must have {rule}")


def _inner(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else ()


def _required(where: str, value: T | None) -> T:
    if value is None:
        raise _wrong(where, "is required")
    return value


def _wrong(where: str, rule: str) -> ApiError:
    return refused(where, f"`{where}`: {rule}", "invalid_value")
