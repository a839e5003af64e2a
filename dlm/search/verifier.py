"""`Verifier`, the base of the judges of answers, and the question that they are told."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import fsum, inf, isnan
from threading import Lock
from typing import Any, ClassVar, Final, NamedTuple

from dlm.engine.generation import Generation
from dlm.errors import InvalidRequest
from dlm.search.memory import Memory
from dlm.search.names import called
from dlm.text.prompts import Prompt

LOG: Final = logging.getLogger(__name__)


class Verdict(NamedTuple):
    """The judgement of one answer.

    score: more is better; -inf where the verifier failed
    feedback: the reason in words that can follow the prompt (empty: none)
    spans: positions of the canvas that are to blame, as (start, end)
    evidence: facts about the answer that `Verifier.compare` reads
    """

    score: float
    feedback: str = ""
    spans: tuple[tuple[int, int], ...] = ()
    evidence: Any = None


FAILED = Verdict(-inf)
"""The verdict of a verifier that raised an exception."""


@dataclass(slots=True)
class Spent:
    """Forwards that verifiers have spent; counted from several threads.

    forwards: row-forwards of any model
    nfe: the same in forwards of the model that decodes
    calls, errors: verdicts given, and those among them whose judgement raised an exception; of
        equal answers each counts, though a verifier `by_text` judges them once
    """

    forwards: int = 0
    nfe: float = 0.0
    calls: int = 0
    errors: int = 0
    _lock: Lock = field(default_factory=Lock, repr=False)

    @contextmanager
    def guarded(self, answers: int = 1) -> Iterator[None]:
        """Count an exception of a block of code that judges answers, and go on after the block.

        The first one of a search is told in the log.
        """
        try:
            yield
        except Exception as error:
            if not self.errors:
                LOG.warning("a verifier has failed: %s: %s", type(error).__name__, error)
            self.add(errors=answers)

    def add(self, forwards: int = 0, nfe: float = 0.0, *, calls: int = 0, errors: int = 0) -> None:
        """Count more."""
        with self._lock:
            self.forwards += forwards
            self.nfe += nfe
            self.calls += calls
            self.errors += errors


@dataclass(frozen=True, slots=True)
class Question:
    """The request whose answers are judged.

    prompt: as the user gave it
    text: the user's words: the prompt itself, or the last message of the user (None for ids)
    ids: the prompt as the model reads it
    engine: the engine that decodes it; its lock is free while a verifier that `blocks` is asked
    spent: the forwards that verifiers have spent; who computes adds to it
    longest: tokens that an answer has at most; 0 where that is not known
    known: the verdicts of verifiers that judge equal answers once
    """

    prompt: Prompt
    text: str | None
    ids: tuple[int, ...]
    engine: Any
    spent: Spent
    longest: int = 0
    known: Memory[Verdict] = field(default_factory=Memory, repr=False, compare=False)


class Verifier:
    """A judge of answers: a frozen dataclass of plain values.

    Most verifiers judge each answer by itself. One that is `relative` compares the answers of a
    search: `score` finds out once, and is billed for, all that it must know of each answer, its
    `evidence`; whenever there is a new answer, `compare` gives the scores of all of them anew, at
    no cost. So the scores of a search that has ended hold among all of its answers; those that a
    policy has received before hold among the answers of that time.

    tier: how well it is proved, `T1` to `T3`
    oracle: it knows the right answer, which no user has: for analysis alone
    blocks: it computes, waits or runs programs, so it is asked beside the decoding thread
    relative: its scores compare answers
    parts: verifiers that it is made of; it is an oracle if one of them is, and blocks if one does
        (see `whole`)
    workers: threads that may ask it at a time, if it `blocks`
    runs_programs: it runs the code of answers, in a sandbox
    by_text: a verdict depends on the question, and on the text and the ids of the answer, alone:
        neither on chance, as that of a user's function may, nor on the way that the answer was
        decoded. Equal answers of a search are judged, and billed for, once; `ask` remembers for
        each part of a verifier by itself
    private: it reads files, or runs programs that could do harm: not for requests of strangers
    trusted_only: it is `private` whatever its arguments are
    options: options of generation that its answers need, whatever the request has under their names
    highest: no score is above it; a search that reaches it is settled
    cost: forwards of the model that one answer takes at most, as far as that is known before; 0
        where it computes nothing
    """

    __slots__ = ()

    tier: ClassVar[str] = "own rule"
    oracle: ClassVar[bool] = False
    blocks: ClassVar[bool] = False
    runs_programs: ClassVar[bool] = False
    by_text: ClassVar[bool] = False
    trusted_only: ClassVar[bool] = False
    relative: ClassVar[bool] = False

    @property
    def parts(self) -> tuple[Verifier, ...]:
        """Verifiers that it is made of."""
        return ()

    @property
    def workers(self) -> int:
        """Threads that may ask it at a time: by default one, or as many as all parts allow."""
        return min((part.workers for part in self.parts), default=1)

    @property
    def private(self) -> bool:
        """True if no stranger may ask for it."""
        return self.trusted_only

    @property
    def options(self) -> Mapping[str, Any]:
        """Options of generation that its answers need: by default those that its parts need."""
        return {name: value for part in self.parts for name, value in part.options.items()}

    @property
    def highest(self) -> float:
        """No score is above it."""
        return inf

    @property
    def cost(self) -> float:
        """Forwards of the model that one answer takes: by default those of its parts."""
        return fsum(part.cost for part in self.parts)

    def resolve(self, parse: Callable[[Any], Verifier]) -> Verifier:
        """The same with its parts parsed from their specs; by default it has none."""
        return self

    def bind(self, question: Question) -> Verifier:
        """Fill in the values that the request decides; by default nothing.

        Raises `InvalidRequest` when the verifier cannot judge answers of this request.
        """
        return self

    @abstractmethod
    def score(self, answers: Sequence[Generation], question: Question) -> Sequence[Verdict]:
        """A verdict for each of several answers to the question."""

    def compare(
        self, answers: Sequence[Generation], verdicts: Sequence[Verdict]
    ) -> Sequence[float]:
        """The scores of answers among each other, of their verdicts; of use where `relative`."""
        return [verdict.score for verdict in verdicts]


def whole(verifier: Verifier) -> Iterator[Verifier]:
    """A verifier and all that it is made of."""
    yield verifier
    for part in verifier.parts:
        yield from whole(part)


def ask(verifier: Verifier, answers: Sequence[Generation], question: Question) -> Sequence[Verdict]:
    """The verdicts of a verifier on answers; those that are known of one that judges `by_text`.

    An exception, and a score that is no number, count as the lowest scores, and are not remembered.
    """
    if not verifier.by_text:
        return _judged(verifier, answers, question)
    own: list[int] = []

    def judge(numbers: Sequence[int]) -> Sequence[Verdict]:
        own.extend(numbers)
        asked = [answers[number] for number in numbers]
        found = _judged(verifier, asked, question)
        return [_moved(one, -len(a.prompt_ids)) for one, a in zip(found, asked, strict=True)]

    keys = [
        (answer.text, answer.finish_reason, answer.ids, answer.canvas[len(answer.prompt_ids) :])
        for answer in answers
    ]
    known = question.known.find(verifier, keys, judge, lambda one: one is not FAILED)
    failed = {number for number, one in enumerate(known) if one is FAILED}
    question.spent.add(errors=len(failed.difference(own)))
    return [_moved(one, len(a.prompt_ids)) for one, a in zip(known, answers, strict=True)]


def _moved(verdict: Verdict, by: int) -> Verdict:
    """A verdict on the same answer after a prompt that is longer by some positions: words of
    feedback may stand in it.
    """
    if not verdict.spans:
        return verdict
    return verdict._replace(spans=tuple((start + by, end + by) for start, end in verdict.spans))


def _judged(
    verifier: Verifier, answers: Sequence[Generation], question: Question
) -> Sequence[Verdict]:
    """The verdicts of a verifier that is asked about all of the answers."""
    verdicts = [FAILED] * len(answers)
    with question.spent.guarded(len(answers)):
        found = list(verifier.score(answers, question))
        if len(found) != len(answers):
            raise ValueError(f"gave {len(found)} verdicts for {len(answers)} answers")
        question.spent.add(errors=sum(isnan(verdict.score) for verdict in found))
        verdicts = [FAILED if isnan(verdict.score) else verdict for verdict in found]
    return verdicts


def each(
    answers: Sequence[Generation], question: Question, judge: Callable[[Generation], Verdict]
) -> list[Verdict]:
    """The verdict of `judge` on each answer; one whose judgement raises fails alone."""
    verdicts = [FAILED] * len(answers)
    for number, answer in enumerate(answers):
        with question.spent.guarded():
            verdicts[number] = judge(answer)
    return verdicts


def require_tokenizer(verifier: Verifier, question: Question) -> None:
    """Raise `InvalidRequest` where a model has no tokenizer: the verifier reads texts."""
    if question.engine.text is None:
        rule = "reads texts, and this model has no tokenizer"
        raise InvalidRequest("verifier", f"{called(verifier)} {rule}")


def require_words(verifier: Verifier, question: Question) -> str:
    """The user's words in a prompt.

    Raises `InvalidRequest` for a prompt of ids, and where a model has no tokenizer.
    """
    require_tokenizer(verifier, question)
    if question.text is None:
        rule = "reads the words of the prompt, and this one is of ids"
        raise InvalidRequest("verifier", f"{called(verifier)} {rule}")
    return question.text
