"""The questions of decisions over HTTP: their schemas, and the engine's questions made of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field

import dlm
from dlm.errors import SHOWN, listed, nearest, shortened, shown
from dlm.serve.fields import Body, Text
from dlm.serve.parts import Parts, as_text, required, text_of, wrong

MOST_CHOICES: Final = 255
MOST_LEVELS: Final = 10


class Keyed(Body):
    """The base of what a question is made of: other keys are kept, so that they can be refused."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": False})


class WireOption(Keyed):
    """One of the choices of a question."""

    value: Text | bool
    description: Text | None = None


class WireLevel(Keyed):
    """One of the levels of a score."""

    label: Text
    description: Text | None = None


def _option(given: Any) -> Any:
    """The object of an option that is given as a text or a boolean; objects as they are.

    Raises `ValueError` for other values.
    """
    if isinstance(given, str | bool):
        return {"value": given}
    if isinstance(given, dict | WireOption):
        return given
    raise ValueError("must be a text, a boolean, or an object with `value`")


def _level(given: Any) -> Any:
    """The object of a level that is given as a text; objects as they are.

    Raises `ValueError` for other values.
    """
    if isinstance(given, str):
        return {"label": given}
    if isinstance(given, dict | WireLevel):
        return given
    raise ValueError("must be a text, or an object with `label`")


GivenOption = Annotated[
    WireOption, BeforeValidator(_option, json_schema_input_type=Text | bool | WireOption)
]
GivenLevel = Annotated[WireLevel, BeforeValidator(_level, json_schema_input_type=Text | WireLevel)]


class WireQuestion(Keyed):
    """A question of `/v1/decisions`."""

    type: Literal["predicate", "choice", "score"]
    name: Annotated[str | None, Field(max_length=256)] = None
    instructions: Text | Parts
    choices: Annotated[list[GivenOption] | None, Field(max_length=MOST_CHOICES)] = None
    levels: Annotated[list[GivenLevel] | None, Field(max_length=MOST_LEVELS)] = None


class SystemOneQuestion(Keyed):
    """A question of `/v1/systemone`."""

    type: Literal["noul", "choice", "score"]
    instructions: Text | dict[str, Any] | list[Any] | None = None
    criteria: dict[str, Any] | Annotated[list[Any], Field(max_length=MOST_LEVELS)] | None = None


def questions_of(given: Sequence[WireQuestion]) -> list[dlm.Question]:
    """The questions of `/v1/decisions`.

    Raises `ApiError` 400 for parts that are no text and for keys that a question lacks.
    """
    found: list[dlm.Question] = []
    for number, question in enumerate(given):
        where = f"questions[{number}]"
        _check_keys(where, question)
        instructions = text_of(f"{where}.instructions", question.instructions)
        if not instructions.strip():
            raise wrong(f"{where}.instructions", f"must not be empty, got {shown(instructions)}")
        if question.type == "predicate":
            found.append(dlm.Predicate(question.name, instructions))
        elif question.type == "choice":
            choices = required(f"{where}.choices", question.choices)
            options = [dlm.Option(one.value, one.description) for one in choices]
            found.append(dlm.Choice(question.name, instructions, options))
        else:
            levels = required(f"{where}.levels", question.levels)
            scale = [dlm.Level(one.label, one.description) for one in levels]
            found.append(dlm.Score(question.name, instructions, scale))
    return found


def _check_keys(where: str, question: WireQuestion) -> None:
    """Raise `ApiError` 400 for a key that a question of its type, or a part of it, lacks."""
    lists = {"predicate": None, "choice": "choices", "score": "levels"}
    own = lists[question.type]
    foreign = {name for name in lists.values() if name and name != own}
    keys = WireQuestion.model_fields.keys() - foreign
    given = {name for name in foreign if getattr(question, name) is not None}
    missing = own if own and getattr(question, own) is None else None
    refuse_keys(where, [*(question.model_extra or ()), *given], keys, question.type, missing)
    for field in ("choices", "levels"):
        for number, part in enumerate(getattr(question, field) or ()):
            known = type(part).model_fields.keys()
            kind = field.removesuffix("s")
            refuse_keys(f"{where}.{field}[{number}]", part.model_extra or (), known, kind)


def refuse_keys(
    where: str, given: Iterable[str], known: Collection[str], kind: str, missing: str | None = None
) -> None:
    """Raise `ApiError` 400 for the first of some keys that are not `known`.

    where: path of the object
    kind: of the object, in words
    missing: a key that the object needs and lacks, most likely the one that was meant
    """
    for key in given:
        near = nearest(key, known) or missing
        hint = f"; did you mean {near!r}?" if near else ""
        rule = f"is no field of a {kind}, which has {listed(known)}{hint}"
        raise wrong(f"{where}.{shortened(key, SHOWN)}", rule)


def system_one_questions(given: Mapping[str, SystemOneQuestion]) -> list[dlm.Question]:
    """The questions of `/v1/systemone`. Raises `ApiError` 400 for criteria of a wrong form."""
    return [_system_one_question(name, question) for name, question in given.items()]


def _system_one_question(name: str, question: SystemOneQuestion) -> dlm.Question:
    known = SystemOneQuestion.model_fields.keys()
    refuse_keys(f"questions.{name}", question.model_extra or (), known, question.type)
    where, criteria = f"questions.{name}.criteria", question.criteria
    instructions = as_text(f"questions.{name}.instructions", question.instructions)
    if question.type == "score":
        if not isinstance(criteria, list):
            raise wrong(where, "must be a list of levels, from the lowest")
        levels = [dlm.Level(as_text(where, level)) for level in criteria]
        return dlm.Score(name, instructions, levels)
    if not isinstance(criteria, dict | None) or (criteria is None and question.type == "choice"):
        raise wrong(where, "must map options to descriptions")
    described = {key: as_text(where, text) or None for key, text in (criteria or {}).items()}
    if question.type == "choice":
        options = [dlm.Option(key, text) for key, text in described.items()]
        return dlm.Choice(name, instructions, options)
    if unknown := described.keys() - {"true", "false"}:
        raise wrong(where, f"describes 'true' and 'false', got {min(unknown)[:80]!r}")
    return dlm.Predicate(name, instructions, described.get("true"), described.get("false"))
