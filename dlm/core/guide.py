"""`Guide`, the base of the parts that change the logits."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor

from dlm.core.plan import Flags, Ints
from dlm.core.proposal import Guided
from dlm.core.protocols import Part
from dlm.core.view import Frame


class Guide(Part):
    """An operation on the clean logits.

    arms: model inputs it needs for each row; arm 0 is the canvas itself
    """

    __slots__ = ()

    arms: int = 1

    def masked_for_arm(self, arm: int, q_pos: Ints, prompt: int) -> Flags:
        """`[q]` bool: the `q_pos` that the arm sees as MASK; by default those of the prompt."""
        return q_pos < prompt

    def allows(self, at: int) -> frozenset[int] | None:
        """The ids that may stand at position `at` of an answer; None where it bars none."""
        return None

    def forbids(self, at: int) -> frozenset[int]:
        """The ids that may not stand at position `at` of an answer."""
        return frozenset()

    @abstractmethod
    def __call__(self, logits: Tensor, frame: Frame, params: Any) -> Tensor | Guided:
        """`[arms, N, V]` -> `[1, N, V]` or `[arms, N, V]`, alone or with new values of its scratch.

        N counts the logits of shadow tokens, too, which come last; `frame.window.row` knows all.
        It reads its tensors in `frame.scratch`; they are written when the step is applied.
        """
