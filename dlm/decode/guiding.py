"""Guides on the logits of a step: each changes what the one before it has left."""

from __future__ import annotations

from torch import Tensor

from dlm.core import Entries, Frame, Guided
from dlm.decode.group import RowGroup

Noted = dict[str, Tensor | Entries]
"""New values of scratch tensors by name, which are written when the step is applied."""


def guided(group: RowGroup, logits: Tensor, frame: Frame) -> tuple[Tensor, Noted]:
    """Call the guides in order on `logits [arms * N, V]`.

    Returns the one arm that is left, `[N, V]`, and what the guides keep.
    """
    noted: Noted = {}
    if not group.parts.guide:
        return logits, noted
    logits = logits.unflatten(0, (group.current.plan.arms, -1))
    for guide, params in group.calls["guide"]:
        answer: Tensor | Guided = guide(logits, frame, params)
        if isinstance(answer, Guided):
            logits = answer.logits
            noted.update(answer.scratch)
        else:
            logits = answer
    return logits[0], noted
