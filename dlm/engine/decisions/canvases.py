"""Canvases with holes: the ids of a template's text around the slots of its questions' labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from dlm.core import ModelInfo
from dlm.engine.canvas_reader import Ids, common_beginning
from dlm.engine.decisions.questions import Choice, Question
from dlm.engine.decisions.template import Order, QuestionTemplate
from dlm.errors import InvalidRequest, shown
from dlm.text import Text, parse_holes
from dlm.text.control import TURN_END_TOKENS

RAW_ANSWER: Final = "\nAnswer: "
"""Stands between the user turn and the answer where a model has no chat template."""


class Slot(NamedTuple):
    """The hole of one question.

    question: its number
    start, width: the positions that are masked
    labels: ids of each label, at most `width`, without those that all labels begin with, which
        stand before the hole
    last: nothing but the end follows the hole, so that labels may be shorter than it
    """

    question: int
    start: int
    width: int
    labels: tuple[Ids, ...]
    last: bool


class Canvas(NamedTuple):
    """Ids with the mask in holes and open positions, and the slots among them in their order."""

    ids: Ids
    slots: tuple[Slot, ...]


class Listed(NamedTuple):
    """A question as a canvas shows it.

    question: what is asked
    number: of the question among all of the request
    order: numbers of its options in the order in which they are listed
    """

    question: Question
    number: int
    order: Order


def build_canvas(
    source: str, asked: Sequence[Listed], template: QuestionTemplate, text: Text, info: ModelInfo
) -> Canvas:
    """The canvas of one question, or of several that share it.

    Spaces before a hole belong to its labels, as tokenizers join them to words. Raises
    `InvalidRequest` for labels that the canvas cannot tell apart, and for texts that the tokenizer
    cannot write.
    """
    turn = template.assistant_turn([one.question.name for one in asked])
    user = template.user_turn(source, [(one.question, one.order) for one in asked])
    if text.vocabulary.template is None:
        ids, turn = text.encode_prompt(user, chat=False), turn.after(RAW_ANSWER)
    else:
        ids = text.encode_prompt([{"role": "user", "content": user}])
    slots: list[Slot] = []
    for place, (before, number) in enumerate(turn.holes):
        bare = before.rstrip(" ")
        ids += _around(bare, text, info)
        last = place == len(turn.holes) - 1 and not turn.rest and bool(info.eos_ids)
        shared, labels = _labels(asked[number], template, before[len(bare) :], text, last=last)
        ids += shared
        width = max(map(len, labels))
        slots.append(Slot(asked[number].number, len(ids), width, labels, last))
        ids += _masks(width, info)
    ids += _around(turn.rest, text, info)
    ids += template.end if template.end is not None else ending(text, info)
    info.check_ids("template", ids)
    return Canvas(tuple(ids), tuple(slots))


def _masks(count: int, info: ModelInfo) -> list[int]:
    assert info.mask_id is not None
    return [info.mask_id] * count


def _around(piece: str, text: Text, info: ModelInfo) -> list[int]:
    """The ids of a text of the template with its open positions."""
    found: list[int] = []
    for part in parse_holes("template.answer", piece):
        if isinstance(part, int):
            found += _masks(part, info)
        else:
            found += text.encode_inside(part, "template")
    return found


def _labels(
    asked: Listed, template: QuestionTemplate, spaces: str, text: Text, *, last: bool
) -> tuple[Ids, tuple[Ids, ...]]:
    """The ids that all labels of a question begin with after `spaces`, and the rest of each.

    Raises `InvalidRequest` for labels of several lengths in a hole that is not the `last` one.
    """
    path = f"questions[{asked.number}]"
    labels = _label_ids(path, asked, template, spaces, text)
    shared = common_beginning(labels)
    own = tuple(label[len(shared) :] for label in labels)
    if not last and len({len(label) for label in own}) > 1:
        lengths = sorted({len(label) for label in labels})
        hint = " or answer choices by letters" if template.choices == "values" else ""
        raise InvalidRequest(
            path,
            f"has labels of {' and '.join(map(str, lengths))} tokens, and text follows its hole: "
            "only the end of an answer can follow labels of several lengths; ask it alone with the "
            f"hole at the end{hint}",
        )
    return shared, own


def ending(text: Text, info: ModelInfo) -> list[int]:
    """The ids that end an answer: the end of a turn, if the chat template writes one, and that of
    the text.
    """
    control, source = text.vocabulary.control, text.vocabulary.template or ""
    turns = [control[t] for t in TURN_END_TOKENS if t in control and t in source]
    return list(dict.fromkeys([*turns[:1], *info.eos_ids[:1]]))


def _label_ids(
    path: str, asked: Listed, template: QuestionTemplate, spaces: str, text: Text
) -> list[Ids]:
    """The ids of each label after `spaces`. Raises `InvalidRequest` for two of equal ids."""
    seen: dict[Ids, int] = {}
    for number, label in enumerate(template.labels(asked.question, asked.order)):
        own = path
        if isinstance(asked.question, Choice):
            own = f"{path}.choices[{number}].value"
        ids = tuple(text.encode_inside(spaces + label, own))
        if seen.setdefault(ids, number) != number:
            rule = f"has the label {shown(label)}, which is to the model that of number {seen[ids]}"
            hint = ": answer by letters" if isinstance(asked.question, Choice) else ""
            raise InvalidRequest(own, rule + hint)
    return list(seen)
