"""Verifiers that compute with a model of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

from dlm.engine.generation import Generation
from dlm.search.verifier import Question, Verifier

MOST_POSITIONS: Final = 8192
"""Positions of one forward, padding included; a longer row has one of its own."""


class OtherModel(Verifier):
    """A verifier with a model of its own, a row an answer.

    A row counts as the share of a forward of the decoding model over the answer's canvas that its
    tokens times the model's parameters come to.
    """

    __slots__ = ()

    tier: ClassVar[str] = "T2"
    blocks: ClassVar[bool] = True
    by_text: ClassVar[bool] = True
    trusted_only: ClassVar[bool] = True  # it reads the files of a model

    @property
    def cost(self) -> float:
        """That of a row as long as the canvas, of a model of equal size."""
        return 1.0

    @property
    @abstractmethod
    def parameters(self) -> int:
        """The number of the model's parameters."""

    def bill(self, question: Question, answer: Generation, tokens: int) -> None:
        """Count a row of this many tokens."""
        decoder = sum(one.numel() for one in question.engine.model.parameters())
        share = tokens * self.parameters / (len(answer.canvas) * decoder)
        question.spent.add(1, share)


def batches(lengths: Sequence[int], most: int = MOST_POSITIONS) -> Iterator[list[int]]:
    """Numbers of rows, the longest first, in batches of at most `most` positions with padding."""
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda at: -lengths[at]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
