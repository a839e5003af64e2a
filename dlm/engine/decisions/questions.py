"""The questions of a decision: predicates, choices and scores, and the checks that they pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dlm.errors import InvalidRequest, require_text, shown, unknown_name

MOST_QUESTIONS: Final = 400
MOST_CHOICES: Final = 255
MOST_LEVELS: Final = 10


@dataclass(frozen=True, slots=True)
class Predicate:
    """Is it true? The answer is a probability.

    name: of the answer; unique among the questions, or None
    instructions: the statement or the question about the input
    true, false: descriptions of the two answers, shown to the model
    """

    name: str | None
    instructions: str
    true: str | None = None
    false: str | None = None


@dataclass(frozen=True, slots=True)
class Option:
    """One of the choices: a text or a boolean, with a description that the model sees."""

    value: str | bool
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """One of 2 to 255 options. The answer is a distribution over them.

    name: of the answer; unique among the questions, or None
    instructions: the question about the input
    choices: the options, each of another value; a text stands for an option without description
    """

    name: str | None
    instructions: str
    choices: Sequence[Option | str | bool]

    @property
    def options(self) -> tuple[Option, ...]:
        """The choices, each as an `Option`."""
        return tuple(one if isinstance(one, Option) else Option(one) for one in self.choices)


@dataclass(frozen=True, slots=True)
class Level:
    """One of the levels of a score, with a description that the model sees."""

    label: str
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """A rating on 2 to 10 ordered levels, numbered from 0. The answer is a distribution over them.

    name: of the answer; unique among the questions, or None
    instructions: the question about the input
    levels: from the lowest to the highest; a text stands for a level without description
    """

    name: str | None
    instructions: str
    levels: Sequence[Level | str]

    @property
    def scale(self) -> tuple[Level, ...]:
        """The levels, each as a `Level`."""
        return tuple(one if isinstance(one, Level) else Level(one) for one in self.levels)


Question = Predicate | Choice | Score


def question_of(path: str, given: Any) -> Question:
    """The question of a mapping in OpenAI's form: `type`, `name`, `instructions`, and `choices` of
    `value` and `description`, or `levels` of `label` and `description`; texts stand for both.

    Raises `InvalidRequest` for other keys; `check_questions` looks at the values.
    """
    if not isinstance(given, Mapping):
        raise InvalidRequest(path, f"must be an object, got {shown(given)}")
    kind, name = given.get("type"), given.get("name")
    lists = {"predicate": None, "choice": "choices", "score": "levels"}
    if not isinstance(kind, str) or kind not in lists:
        raise unknown_name(f"{path}.type", str(kind), lists)
    items = lists[kind]
    needed = {"instructions", *([items] if items else ())}
    _check_keys(path, given, {"type", *needed}, {"name"})
    if items is None:
        return Predicate(name, given["instructions"])
    parts = given[items]
    if isinstance(parts, Sequence) and not isinstance(parts, str):
        cls, key = (Option, "value") if kind == "choice" else (Level, "label")
        for number, part in enumerate(parts):
            if isinstance(part, Mapping):
                _check_keys(f"{path}.{items}[{number}]", part, {key}, {"description"})
        parts = [cls(**part) if isinstance(part, Mapping) else part for part in parts]
    return (Choice if kind == "choice" else Score)(name, given["instructions"], parts)


def _check_keys(path: str, given: Mapping[Any, Any], needed: set[str], optional: set[str]) -> None:
    for key in given.keys() - needed - optional:
        raise unknown_name(path, str(key), needed | optional)
    for key in needed - given.keys():
        raise InvalidRequest(f"{path}.{key}", "is required")


def check_questions(questions: Any) -> tuple[Question, ...]:
    """The questions of one input as a tuple. Raises `InvalidRequest` that names the field."""
    if isinstance(questions, Predicate | Choice | Score):
        questions = (questions,)
    if isinstance(questions, str) or not isinstance(questions, Iterable):
        raise InvalidRequest("questions", f"must be a list of questions, got {shown(questions)}")
    asked = tuple(questions)
    if not 1 <= len(asked) <= MOST_QUESTIONS:
        rule = f"must hold between 1 and {MOST_QUESTIONS} questions, got {len(asked)}"
        raise InvalidRequest("questions", rule)
    names: dict[str, int] = {}
    for number, question in enumerate(asked):
        path = f"questions[{number}]"
        if not isinstance(question, Predicate | Choice | Score):
            rule = f"must be a Predicate, a Choice or a Score, got {shown(question)}"
            raise InvalidRequest(path, rule)
        _check_question(path, question)
        if question.name is not None and names.setdefault(question.name, number) != number:
            other = f"questions[{names[question.name]}]"
            raise InvalidRequest(f"{path}.name", f"is that of {other}: {shown(question.name)}")
    return asked


def _check_question(path: str, question: Question) -> None:
    _check_text(f"{path}.name", question.name, optional=True)
    _check_text(f"{path}.instructions", question.instructions)
    if isinstance(question, Predicate):
        _check_text(f"{path}.true", question.true, optional=True)
        _check_text(f"{path}.false", question.false, optional=True)
    elif isinstance(question, Choice):
        _check_size(f"{path}.choices", question.choices, MOST_CHOICES, "choices")
        seen: dict[tuple[type, str | bool], int] = {}
        for number, option in enumerate(question.options):
            where = f"{path}.choices[{number}]"
            if not isinstance(option.value, bool):
                _check_text(f"{where}.value", option.value, empty=False)
            _check_text(f"{where}.description", option.description, optional=True)
            first = seen.setdefault((type(option.value), option.value), number)
            if first != number:
                rule = f"is that of choices[{first}]: {shown(option.value)}"
                raise InvalidRequest(f"{where}.value", rule)
    else:
        _check_size(f"{path}.levels", question.levels, MOST_LEVELS, "levels")
        for number, level in enumerate(question.scale):
            _check_text(f"{path}.levels[{number}].label", level.label, empty=False)
            where = f"{path}.levels[{number}].description"
            _check_text(where, level.description, optional=True)


def _check_size(path: str, items: Any, most: int, what: str) -> None:
    if isinstance(items, str) or not isinstance(items, Sequence):
        raise InvalidRequest(path, f"must be a list, got {shown(items)}")
    count = len(items)
    if not 2 <= count <= most:
        raise InvalidRequest(path, f"must hold between 2 and {most} {what}, got {count}")


def _check_text(path: str, value: Any, *, optional: bool = False, empty: bool = True) -> None:
    if optional and value is None:
        return
    if not isinstance(value, str):
        raise InvalidRequest(path, f"must be a text, got {shown(value)}")
    if not (empty or value.strip()):
        raise InvalidRequest(path, f"must not be empty, got {shown(value)}")
    require_text(path, value)
