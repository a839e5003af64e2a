"""`DecisionJob`: the questions about one input on their way to answers, forward by forward."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from math import fsum
from typing import Any, Final, Protocol

import torch

from dlm.engine.canvas_reader import MOST_POSITIONS, CanvasReader, Holder, shared_length
from dlm.engine.decisions.answers import Answer, DecisionCosts, Decisions, answer_of
from dlm.engine.decisions.canvases import Canvas, Listed, build_canvas
from dlm.engine.decisions.options import DecisionOptions
from dlm.engine.decisions.questions import Choice, Predicate, Question, Score, check_questions
from dlm.engine.decisions.scoring import (
    LabelTerms,
    Term,
    label_terms,
    mass,
    note_terms,
    renormalised,
    rows_of,
    summed,
)
from dlm.engine.decisions.template import Order
from dlm.engine.scheduler import Scheduler
from dlm.errors import InvalidRequest, Unavailable, require_text, shown
from dlm.text import Text, no_tokenizer

Input = str | Sequence[Mapping[str, Any]]
"""A text, or messages `{"role", "content"}`, which are shown as a transcript."""
MOST_CANVASES: Final = 4096
"""Canvases of one request."""


class Asked(Holder, Protocol):
    """The members of an engine that a job uses."""

    text: Text | None
    scheduler: Scheduler


class DecisionJob:
    """Checked questions with the canvases to compute; made in any thread.

    rows: the canvases to compute
    input_tokens: ids of all questions' canvases

    `step` does one forward, under the engine's lock, until it returns False; `result` has the
    answers then. `close` frees what an unfinished job holds. Arguments and errors are those of
    `Engine.decide`; `longest` bounds a canvas more than the model does.
    """

    def __init__(
        self,
        engine: Asked,
        source: Input,
        questions: Question | Sequence[Question],
        options: DecisionOptions,
        longest: int | None = None,
    ) -> None:
        if engine.text is None:
            raise no_tokenizer("input")
        self.questions, self._options = check_questions(questions), options
        _check_model(engine, joint=options.joint)
        self._turns = [min(options.rotations, _most_rotations(q)) for q in self.questions]
        self._scores: list[list[LabelTerms]] = [[] for _ in self.questions]
        most, self.input_tokens, self._sheets = engine.scheduler.max_token_forwards, 0, 0
        limits = {
            "the model": min(engine.info.max_length, longest or engine.info.max_length),
            "a forward (`max_token_forwards`)": engine.info.max_length if most is None else most,
        }
        self._build(engine, _transcript(source), limits)
        terms = [one for own in self._scores for one in own]
        self.rows = rows_of(terms, engine.info)
        self._found: dict[Term, float] = {}
        self._reader = CanvasReader(
            engine,
            self.rows,
            partial(note_terms, self._found),
            MOST_POSITIONS if most is None else most,
            shared=shared_length(engine, self.rows),
        )
        self._cached_tokens = self._reader.shared * (self._sheets - 1)
        self._begun: float | None = None
        self._seconds, self._closed = 0.0, False

    def _build(self, engine: Asked, text: str, limits: Mapping[str, int]) -> None:
        """Make the canvases and the terms of their labels, as long as they are within bounds."""
        numbers = range(len(self.questions))
        groups = [list(numbers)] if self._options.joint else [[n] for n in numbers]
        lists = [max(self._turns[n] for n in group) for group in groups]
        _check_count(sum(lists))
        count = 0
        for group, turns in zip(groups, lists, strict=True):
            for turn in range(turns):
                canvas, found = self._sheet(engine, text, group, turn)
                self._check_length(engine, canvas, text, limits)
                count += len({term.ids for one in found for label in one.labels for term in label})
                _check_count(count)
                self.input_tokens += len(canvas.ids)
                self._sheets += 1
                for one in found:
                    if turn < self._turns[one.slot.question]:
                        self._scores[one.slot.question].append(one)

    def step(self) -> bool:
        """Do the next forward; False if all is done, or closed. Errors as in `Engine.decide`."""
        if self._closed:
            return False
        if self._begun is None:
            self._begun = time.perf_counter()
        try:
            with torch.inference_mode():
                more = self._reader.step()
        except Exception:
            self.close()
            raise
        self._seconds = time.perf_counter() - self._begun
        return more

    def close(self) -> None:
        """Give pages back and compute nothing more; under the engine's lock."""
        self._closed = True
        self._reader.close()

    def result(self) -> Decisions:
        """The answers, after the last step."""
        answers = [
            self._answer(question, terms)
            for question, terms in zip(self.questions, self._scores, strict=True)
        ]
        reader = self._reader
        costs = DecisionCosts(
            nfe=reader.nfe,
            forwards=reader.forwards,
            token_forwards=reader.token_forwards,
            input_tokens=self.input_tokens,
            cached_tokens=self._cached_tokens,
            seconds=self._seconds,
        )
        return Decisions(tuple(answers), costs)

    def _answer(self, question: Question, rotated: Sequence[LabelTerms]) -> Answer:
        """The mean over the orders in which the question's options were listed."""
        scores = [summed(terms, self._found) for terms in rotated]
        each = [renormalised(score, self._options.temperature) for score in scores]
        probabilities = [fsum(column) / len(each) for column in zip(*each, strict=True)]
        pseudo = self._options.scoring == "pseudo"
        share = None if pseudo else fsum(map(mass, scores)) / len(scores)
        return answer_of(question, probabilities, share)

    def _sheet(
        self, engine: Asked, text: str, group: Sequence[int], turn: int
    ) -> tuple[Canvas, list[LabelTerms]]:
        """The canvas of a group of questions whose options are listed for the `turn`-th time."""
        assert engine.text is not None
        questions, words = self.questions, self._options.template
        asked = [Listed(questions[n], n, _order(questions[n], turn, self._turns[n])) for n in group]
        canvas = build_canvas(text, asked, words, engine.text, engine.info)
        return canvas, label_terms(canvas, engine.info, self._options.scoring)

    def _check_length(
        self, engine: Asked, canvas: Canvas, text: str, limits: Mapping[str, int]
    ) -> None:
        """Raise `InvalidRequest` for a canvas beyond one of the `limits`, naming the field that
        takes most of it, and `Unavailable` for one beyond the key/value budget.
        """
        numbers, size = [slot.question for slot in canvas.slots], engine.info.alignment
        length = -(-len(canvas.ids) // size) * size
        which = f"questions[{numbers[0]}]" if len(numbers) == 1 else f"{len(numbers)} questions"
        for name, limit in limits.items():
            if length > limit:
                shares = self._shares(engine, canvas, text)
                most = max(shares, key=lambda param: shares[param])
                rule = f"takes {shares[most]} of the {length} positions of the canvas of {which}"
                raise InvalidRequest(most, f"{rule}; the limit of {name} is {limit}")
        pages = engine.kv.pages
        if not pages.fits(pages.pages_for(length)):
            raise Unavailable(f"a canvas of {length} positions does not fit the key/value budget")

    def _shares(self, engine: Asked, canvas: Canvas, text: str) -> dict[str, int]:
        """The positions of a canvas that each field takes, nearly: parts are tokenized alone."""
        assert engine.text is not None
        words, encode = self._options.template, engine.text.encode
        turn = "answer" if len(canvas.slots) == 1 else "joint_answer"
        masks = sum(token == engine.info.mask_id for token in canvas.ids)
        shares = {
            "input": len(encode(text)),
            "template.user": len(encode(words.user)),
            f"template.{turn}": masks - sum(slot.width for slot in canvas.slots),
        }
        asked = {slot.question: self.questions[slot.question] for slot in canvas.slots}
        for number, question in asked.items():
            shares[f"questions[{number}].instructions"] = len(encode(question.instructions))
        labels = max(len(canvas.ids) - sum(shares.values()), 0)  # with what is listed around them
        lists = {Choice: ".choices", Score: ".levels"}
        longest = max(asked, key=lambda number: _label_count(asked[number]))
        shares[f"questions[{longest}]{lists.get(type(asked[longest]), '')}"] = labels
        return shares


def _label_count(question: Question) -> int:
    match question:
        case Predicate():
            return 2
        case Choice():
            return len(question.choices)
        case _:
            return len(question.levels)


def _order(question: Question, turn: int, turns: int) -> Order:
    """The options in the order of the `turn`-th of `turns` lists: rotated by equal parts."""
    count = _label_count(question)
    if isinstance(question, Score):
        return range(count)
    first = turn % turns * count // turns
    return [(first + at) % count for at in range(count)]


def _most_rotations(question: Question) -> int:
    """The number of orders in which its options can be listed: that of levels is fixed."""
    return 1 if isinstance(question, Score) else _label_count(question)


def _check_model(engine: Asked, *, joint: bool) -> None:
    info = engine.info
    if info.mask_id is None:
        raise InvalidRequest("model", "has no mask, so that no hole can be read")
    if joint and info.attention == "block_causal":
        raise InvalidRequest(
            "joint",
            "must be False for block-causal models: a later hole would see the masks of an earlier "
            "one, which such models never saw; questions share the keys of the input anyway",
        )


def _check_count(count: int) -> None:
    if count > MOST_CANVASES:
        raise InvalidRequest(
            "questions",
            f"take {count} canvases or more, of at most {MOST_CANVASES}: ask fewer at once, in "
            "fewer rotations, or answer choices by letters",
        )


def _transcript(source: Any) -> str:
    """The text of an input. Raises `InvalidRequest` that names the field."""
    if isinstance(source, str):
        return require_text("input", source)
    if not isinstance(source, Sequence) or not source:
        rule = "must be a text or a list of messages"
        raise InvalidRequest("input", f"{rule}, got {shown(source)}")
    lines = []
    for number, message in enumerate(source):
        path = f"input[{number}]"
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
            raise InvalidRequest(path, f"must have a role and a content, got {shown(message)}")
        for name in ("role", "content"):
            if not isinstance(message[name], str):
                raise InvalidRequest(
                    f"{path}.{name}", f"must be a text, got {shown(message[name])}"
                )
            require_text(f"{path}.{name}", message[name])
        lines.append(f"{message['role']}: {message['content']}")
    return "\n\n".join(lines)
