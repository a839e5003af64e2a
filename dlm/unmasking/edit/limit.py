"""Bounds of what the editors before it in the list may revise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from dlm.core import Editor, Kind, Proposal, ScratchSpec, StepView
from dlm.errors import InvalidRequest
from dlm.unmasking.scores import top

REMEMBERED: Final = 16
"""States of a block that are remembered."""
_FACTORS: Final = (0x9E3779B97F4A7C1, 0xC2B2AE3D27D4EB4, 0x165667B19E3779F)
"""Large odd numbers of a hash."""


@dataclass(frozen=True, slots=True)
class Limit(Editor):
    """Let the editors before it revise no position more than `most` times, no more than a `share`
    of the shown tokens in a step (one at least), and never back to a state that the row was in.

    Of more revisions than the share allows, those of the tokens that were the least confident at
    their commits pass. A filled block that an editor holds is let go where none of its revisions
    passes. `cycles=False` lets editors go in circles until the engine's own bound ends them; else
    the last 16 states of what the steps show are remembered.
    """

    most: int = 3
    share: float = 1.0
    cycles: bool = True

    scope = "block"
    scratch = (ScratchSpec("limit.seen", "row", torch.long, width=REMEMBERED),)

    def __post_init__(self) -> None:
        if self.most < 0:
            raise InvalidRequest("edit", f"`most` must be at least 0, got {self.most}")
        if not 0 <= self.share <= 1:
            raise InvalidRequest("edit", f"`share` must be in [0, 1], got {self.share}")

    def edit(self, view: StepView, proposal: Proposal) -> Proposal:
        """Drop the revisions that are too many, and all of a step that would close a circle."""
        none = torch.zeros_like(proposal.commit)
        remask, replace = (none if m is None else m for m in (proposal.remask, proposal.replace))
        filled = view.kind == Kind.COMMITTED
        asked = (remask | replace) & filled
        count = (filled.sum(dim=1, keepdim=True) * view.params.share).long().clamp_min(1)
        unsure = -view.last.conf.nan_to_num(0.0)
        passing = top(unsure, asked & (view.last.edits < view.params.most), count)
        seen = view.scratch["limit.seen"]
        if self.cycles:
            state = _state(view, proposal, remask & passing, replace & passing)
            passing = passing & ~(seen == state[:, None]).any(dim=1, keepdim=True)
        state = _state(view, proposal, remask & passing, replace & passing)
        futile = asked.any(dim=1) & ~passing.any(dim=1) & ~view.eligible.any(dim=1)
        stays = proposal.commit & remask  # both: the position stays as it is
        return proposal._replace(
            remask=None if proposal.remask is None else (remask & passing) | stays,
            replace=None if proposal.replace is None else replace & passing,
            hold=None if proposal.hold is None else proposal.hold & ~futile,
        ).revised(scratch={"limit.seen": torch.cat((seen[:, 1:], state[:, None]), dim=1)})


def _state(view: StepView, proposal: Proposal, remask: Tensor, replace: Tensor) -> Tensor:
    """`[R]`: a hash of what the step shows after it."""
    written = (proposal.commit & (view.kind >= Kind.MASK)) | replace
    token = view.token if proposal.token is None else proposal.token
    ids = torch.where(written, token, view.ids)
    is_open = ((view.kind >= Kind.MASK) & ~written) | remask
    ids = torch.where(is_open, -1, ids)
    ids_factor, pos_factor, mix = _FACTORS
    found = (ids + 2) * ids_factor + (view.pos + 1) * pos_factor
    found = (found ^ (found >> 29)) * mix
    return torch.where(view.valid, found ^ (found >> 32), 0).sum(dim=1)
