"""`QuestionTemplate`: the words around an input, its questions and the holes of their answers."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, NamedTuple, Self

from dlm.engine.decisions.questions import Choice, Predicate, Question, Score
from dlm.errors import InvalidRequest, require_text, shown, unknown_name

HOLE: Final = re.compile(r"\{hole(?::([^{}]*))?\}")
FIELD: Final = re.compile(r"\{(input|questions|instructions|labels|number)\}")
PLACES: Final = (
    ("user", ("input", "questions")),
    ("question", ("instructions", "labels", "number")),
    ("joint_question", ("instructions", "labels", "number")),
)
"""The fields that may stand in each text of a template."""


@dataclass(frozen=True, slots=True)
class QuestionTemplate:
    """The text of a canvas: a user turn, and an assistant turn with a hole for each label.

    user: the user turn; `{input}` and `{questions}` stand in it
    question: one question in it, of `{instructions}` and `{labels}`, the list of the labels
    answer: the assistant turn: `{hole}` once, and around it text and open positions `[[mask:N]]`,
        which stay open
    joint_question: the same as `question` where several stand on one canvas; with `{number}`
    joint_answer: a line of the assistant turn for each question, with `{number}` and `{hole}`; or
        the whole turn, with a `{hole:NAME}` for each question
    choices: answered by `letters` (numbers beyond 26 choices), which the user turn lists with the
        values, or by the `values` themselves
    yes, no: labels of predicates
    end: ids after the answer; None: the end of a turn that the chat template writes, and the end of
        text
    """

    user: str = "{input}\n\n{questions}"
    question: str = "{instructions}\n{labels}"
    answer: str = "{hole}"
    joint_question: str = "{number}. {instructions}\n{labels}"
    joint_answer: str = "{number}. {hole}"
    choices: Literal["letters", "values"] = "letters"
    yes: str = "Yes"
    no: str = "No"
    end: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Raises `InvalidRequest` for a field of another type or without its hole."""
        for field in fields(self):
            if field.name != "end":
                value = getattr(self, field.name)
                if not isinstance(value, str):
                    raise _wrong(field.name, f"must be a text, got {shown(value)}")
                require_text(f"template.{field.name}", value)
        for name in ("yes", "no"):
            if not getattr(self, name).strip():
                raise _wrong(name, "must not be empty")
        if self.choices not in ("letters", "values"):
            raise unknown_name("template.choices", self.choices, ("letters", "values"))
        if len(HOLE.findall(self.answer)) != 1 or "{hole}" not in self.answer:
            raise _wrong("answer", f"must hold {{hole}} once, got {shown(self.answer)}")
        if not HOLE.search(self.joint_answer):
            raise _wrong("joint_answer", "must hold {hole}, or a {hole:NAME} for each question")
        for name, places in PLACES:
            needed = "questions" if name == "user" else "instructions"
            if f"{{{needed}}}" not in getattr(self, name):
                listed = " and ".join(f"{{{place}}}" for place in places)
                raise _wrong(name, f"must hold {{{needed}}} ({listed} may stand in it)")
        if self.end is not None:
            ids = self.end if isinstance(self.end, Sequence) else None
            if ids is None or not all(type(i) is int for i in ids):
                raise _wrong("end", f"must be None or a list of ids, got {shown(self.end)}")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """The template of a mapping from fields to values.

        Raises `InvalidRequest` for an unknown field and a wrong value.
        """
        known = {field.name for field in fields(cls)}
        for name in options:
            if name not in known:
                raise unknown_name("template", str(name), known)
        return cls(**options)

    def user_turn(self, source: str, asked: Sequence[tuple[Question, Order]]) -> str:
        """The text of the user turn: the input and some questions, each with the order in which its
        options are listed; several are numbered from 1.
        """
        form = self.joint_question if len(asked) > 1 else self.question
        questions = "\n".join(
            _filled(
                form,
                instructions=question.instructions,
                labels=self.listing(question, order),
                number=str(number),
            ).strip("\n")
            for number, (question, order) in enumerate(asked, start=1)
        )
        return _filled(self.user, input=source, questions=questions).strip("\n")

    def labels(self, question: Question, order: Order) -> list[str]:
        """The label of each option, level, or true and false, in the question's order.

        `order`: the numbers of the options in the order in which they are listed.
        """
        match question:
            case Predicate():
                return [self.yes, self.no]
            case Score():
                return [str(level) for level in range(len(question.levels))]
            case Choice():
                if self.choices == "values":
                    return [spelled(option.value) for option in question.options]
                marks = _marks(len(order))
                return [mark for _, mark in sorted(zip(order, marks, strict=True))]

    def listing(self, question: Question, order: Order) -> str:
        """The labels as the user turn lists them, in `order`."""
        labels = self.labels(question, order)
        match question:
            case Predicate():
                described = zip(labels, (question.true, question.false), strict=True)
                lines = [f"{label}: {text}" for label, text in described if text]
                first, second = (labels[at] for at in order)
                return "\n".join([*lines, f"Answer {first} or {second}."])
            case Score():
                texts = [_described(level.label, level.description) for level in question.scale]
                lines = [f"{label}. {text}" for label, text in zip(labels, texts, strict=True)]
                return "\n".join([*lines, "Answer with the number of a level."])
            case Choice():
                options = question.options
                texts = [_described(spelled(o.value), o.description) for o in options]
                if self.choices == "values":
                    return "\n".join([*(f"- {texts[at]}" for at in order), "Answer with one."])
                kind = "letter" if len(order) <= len(string.ascii_uppercase) else "number"
                lines = [f"{labels[at]}. {texts[at]}" for at in order]
                return "\n".join([*lines, f"Answer with the {kind} of a choice."])

    def assistant_turn(self, names: Sequence[str | None]) -> Turn:
        """The assistant turn of the questions of these names.

        Raises `InvalidRequest` where named holes are not those of the questions.
        """
        if len(names) == 1:
            form = self.answer
        elif "{hole}" in self.joint_answer:
            lines = (_filled(self.joint_answer, number=str(n + 1)) for n in range(len(names)))
            form = "\n".join(lines)
        else:
            form = self.joint_answer
        *pieces, rest = HOLE.split(form)  # a text, the name of the hole after it, and so on
        found = pieces[1::2]
        if None in found:
            numbers = list(range(len(names)))
            if found.count(None) != len(names):
                raise _wrong("joint_answer", "must hold {hole} once, or named holes alone")
        else:
            if sorted(map(str, found)) != sorted(map(str, names)):
                rule = f"must have a hole for each of the questions {shown(list(names))}"
                raise _wrong("joint_answer", f"{rule}, got {shown(found)}")
            numbers = [list(names).index(name) for name in found]
        return Turn(tuple(zip(pieces[::2], numbers, strict=True)), rest)


class Turn(NamedTuple):
    """An assistant turn with holes.

    holes: the text before each hole, and the place of its question among those that were asked
    rest: the text after the last one
    """

    holes: tuple[tuple[str, int], ...]
    rest: str

    def after(self, text: str) -> Turn:
        """The same after a text."""
        (before, number), *others = self.holes
        return Turn(((text + before, number), *others), self.rest)


Order = Sequence[int]
"""Numbers of a question's options in the order in which the model sees them."""


def spelled(value: str | bool) -> str:
    """The text of a choice's value."""
    return ("true" if value else "false") if isinstance(value, bool) else value


def _marks(count: int) -> list[str]:
    """A letter for each of up to 26 choices; numbers of equal width for more."""
    if count <= len(string.ascii_uppercase):
        return list(string.ascii_uppercase[:count])
    return [str(number).zfill(len(str(count))) for number in range(1, count + 1)]


def _described(label: str, description: str | None) -> str:
    return f"{label}: {description}" if description else label


def _filled(form: str, **values: str) -> str:
    """`form` with its fields replaced, once: what a value spells stays text."""
    return FIELD.sub(lambda field: values.get(field[1], field[0]), form)


def _wrong(field: str, rule: str) -> InvalidRequest:
    return InvalidRequest(f"template.{field}", rule)
