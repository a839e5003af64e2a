"""Verifiers that know the right answer: for analysis alone, and asked for by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from dlm.engine.generation import Generation
from dlm.search.extract import extract as extractor_of
from dlm.search.verifier import Question, Verdict, Verifier, each, require_tokenizer


@dataclass(frozen=True, slots=True)
class ExactAnswer(Verifier):
    """`exact_answer(answer)`: an oracle: 1 if an answer comes to the right one.

    answer: the right answer, or a text that comes to it
    extract: as of `majority`; `text` compares whole texts
    """

    answer: str
    extract: Any = "auto"

    tier: ClassVar[str] = "T2"
    oracle: ClassVar[bool] = True

    def __post_init__(self) -> None:
        extractor_of(self.extract)

    @property
    def highest(self) -> float:
        """It is right."""
        return 1.0

    def bind(self, question: Question) -> Verifier:
        """See `Verifier`."""
        require_tokenizer(self, question)
        return self

    def score(self, answers: Sequence[Generation], question: Question) -> Sequence[Verdict]:
        """See `Verifier`."""
        find = extractor_of(self.extract)
        right = find(self.answer) or self.answer.strip()
        return each(answers, question, lambda one: Verdict(float(find(one.text or "") == right)))
