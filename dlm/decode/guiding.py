"""Guides on the logits of a step: each changes what the one before it has left."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dlm.core import Entries, Frame, Guided
from dlm.decode.auxiliary import AuxiliaryModel
from dlm.decode.group import RowGroup
from dlm.decode.reference import Reference

Noted = dict[str, Tensor | Entries]
"""New values of scratch tensors by name, which are written when the step is applied."""


def guide(
    group: RowGroup, logits: Tensor, frame: Frame, aux: Mapping[str, AuxiliaryModel]
) -> tuple[Tensor, Noted]:
    """Call the guides in order on `logits [arms * N, V]`, after the references that they read.

    Returns the one arm that is left, `[N, V]`, and what the guides and the references keep.
    """
    noted: Noted = {}
    if group.shared.aux:
        frame = _with_references(group, frame, aux, noted)
    logits = logits.unflatten(0, (group.current.plan.arms, -1))
    for part, params in group.calls["guide"]:
        answer: Tensor | Guided = part(logits, frame, params)
        if isinstance(answer, Guided):
            logits = answer.logits
            noted.update(answer.scratch)
        else:
            logits = answer
    return logits[0], noted


def _with_references(
    group: RowGroup, frame: Frame, aux: Mapping[str, AuxiliaryModel], noted: Noted
) -> Frame:
    """The frame with what the references among the group's auxiliary models say."""
    said: dict[str, Tensor] = {}
    for line, name in enumerate(group.shared.aux, start=group.shared.arms):
        model = aux[name]
        if isinstance(model, Reference):
            said[name], kept = model.read(group, frame.window, line, _every(group, name))
            noted.update(kept)
    return frame._replace(references=said)


def _every(group: RowGroup, name: str) -> Tensor:
    """`[R]`: the steps that a reading of the reference `name` serves, the least that a guide asks
    for.
    """
    asked = []
    for part, (_, params) in zip(group.parts.guide, group.calls["guide"], strict=True):
        if name in part.needs:
            every = getattr(params, "every", None)
            asked.append(torch.ones_like(group.rows.step) if every is None else every[:, 0])
    return torch.stack(asked).amin(dim=0)
