"""`Verifier`, the base of the judges of answers, and the question that they are told."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from threading import Lock
from typing import Any, ClassVar, NamedTuple

from dlm.engine.generation import Generation
from dlm.text.prompts import Prompt


class Verdict(NamedTuple):
    """The judgement of one answer.

    score: more is better; -inf where the verifier failed
    feedback: the reason in words that can follow the prompt (empty: none)
    spans: positions of the canvas that are to blame, as (start, end)
    """

    score: float
    feedback: str = ""
    spans: tuple[tuple[int, int], ...] = ()


FAILED = Verdict(-inf)
"""The verdict of a verifier that raised an exception."""


@dataclass(slots=True)
class Spent:
    """Forwards that verifiers have spent; counted from several threads.

    forwards: row-forwards of any model
    nfe: the same in forwards of the model that decodes
    calls, errors: answers judged, and those among them whose judgement raised an exception
    """

    forwards: int = 0
    nfe: float = 0.0
    calls: int = 0
    errors: int = 0
    _lock: Lock = field(default_factory=Lock, repr=False)

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
    """

    prompt: Prompt
    text: str | None
    ids: tuple[int, ...]
    engine: Any
    spent: Spent


class Verifier:
    """A judge of answers: a frozen dataclass of plain values.

    tier: how well it is proved, `T1` to `T3`
    oracle: it knows the right answer, which no user has: for analysis alone
    blocks: it computes, waits or runs programs, so it is asked beside the decoding thread
    highest: no score is above it; a search that reaches it is settled
    cost: forwards of the model that one answer takes
    """

    __slots__ = ()

    tier: ClassVar[str] = "own rule"
    oracle: ClassVar[bool] = False
    blocks: ClassVar[bool] = False

    @property
    def highest(self) -> float:
        """No score is above it."""
        return inf

    @property
    def cost(self) -> float:
        """Forwards of the model that one answer takes."""
        return 0.0

    def bind(self, question: Question) -> Verifier:
        """Fill in what the request decides; by default nothing.

        Raises `InvalidRequest` when the verifier cannot judge answers of this request.
        """
        return self

    @abstractmethod
    def score(self, answers: Sequence[Generation], question: Question) -> Sequence[Verdict]:
        """A verdict for each of several answers to the question."""


Function = Callable[..., Any]
"""A user's judge: takes a text, gives a number, or a number and words."""
