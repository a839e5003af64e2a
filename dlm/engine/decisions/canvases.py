"""Canvases with holes: the ids of a template's text around the slots of its questions' labels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Final, NamedTuple

from dlm.core import ModelInfo
from dlm.engine.decisions.questions import Choice, Question
from dlm.engine.decisions.template import Order, QuestionTemplate
from dlm.errors import InvalidRequest
from dlm.text import Text, parse_holes
from dlm.text.control import TURN_END_TOKENS

Ids = tuple[int, ...]
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


def build_canvas(
    source: str,
    questions: Sequence[Question],
    numbers: Sequence[int],
    orders: Sequence[Order],
    template: QuestionTemplate,
    text: Text,
    info: ModelInfo,
) -> Canvas:
    """The canvas of one question, or of several that share it.

    numbers: of the questions among all of the request
    orders: the order in which the options of each are listed

    Raises `InvalidRequest` for labels that the canvas cannot tell apart, and for texts that the
    tokenizer cannot write.
    """
    mask, encode = info.mask_id, text.encode_inside
    assert mask is not None
    turn = template.assistant_turn([question.name for question in questions])
    user = template.user_turn(source, questions, orders)
    if text.vocabulary.template is None:
        ids, turn[0] = text.encode_prompt(user, chat=False), f"{RAW_ANSWER}{turn[0]}"
    else:
        ids = text.encode_prompt([{"role": "user", "content": user}])
    slots: list[Slot] = []
    for at, piece in enumerate(turn):
        if isinstance(piece, str):
            before_hole = at < len(turn) - 1
            shown = piece.rstrip(" ") if before_hole else piece
            for part in parse_holes("template.answer", shown):
                ids += [mask] * part if isinstance(part, int) else encode(part, "template")
            continue
        before, after = str(turn[at - 1]), turn[at + 1 :]
        spaces = " " * (len(before) - len(before.rstrip(" ")))
        last = after == [""]
        question, number, order = questions[piece], numbers[piece], orders[piece]
        path = f"questions[{number}]"
        labels = _label_ids(path, question, template.labels(question, order), spaces, text)
        shared = common_beginning(labels)
        ids += shared
        own = tuple(label[len(shared) :] for label in labels)
        width = max(map(len, own))
        if not (last and info.eos_ids) and any(len(label) < width for label in own):
            raise InvalidRequest(path, _lengths(template, own, len(shared)))
        slots.append(Slot(number, len(ids), width, own, last))
        ids += [mask] * width
    ids += template.end if template.end is not None else ending(text, info)
    info.check_ids("template", ids)
    return Canvas(tuple(ids), tuple(slots))


def ending(text: Text, info: ModelInfo) -> list[int]:
    """The ids that end an answer: the end of a turn, if the chat template writes one, and that of
    the text.
    """
    control, source = text.vocabulary.control, text.vocabulary.template or ""
    turns = [control[t] for t in TURN_END_TOKENS if t in control and t in source]
    return list(dict.fromkeys([*turns[:1], *info.eos_ids[:1]]))


def _label_ids(
    path: str, question: Question, labels: Sequence[str], spaces: str, text: Text
) -> list[Ids]:
    """The ids of each label after `spaces`. Raises `InvalidRequest` for two of equal ids."""
    seen: dict[Ids, int] = {}
    for number, label in enumerate(labels):
        own = path
        if isinstance(question, Choice):
            own = f"{path}.choices[{number}].value"
        ids = tuple(text.encode_inside(spaces + label, own))
        if seen.setdefault(ids, number) != number:
            rule = f"is {label!r} to the model, as choices[{seen[ids]}] is"
            raise InvalidRequest(own, f"{rule}: answer by letters to tell them apart")
    return list(seen)


def _lengths(template: QuestionTemplate, labels: Sequence[Ids], shared: int) -> str:
    lengths = sorted({len(label) + shared for label in labels})
    hint = " or answer choices by letters" if template.choices == "values" else ""
    return (
        f"has labels of {' and '.join(map(str, lengths))} tokens, and text follows its hole: only "
        f"the end of an answer can follow labels of several lengths; ask it alone with the hole at "
        f"the end{hint}"
    )


def common_beginning(rows: Sequence[Ids]) -> Ids:
    """The ids that all rows begin with."""
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
    return tuple(column[0] for column in alike)
