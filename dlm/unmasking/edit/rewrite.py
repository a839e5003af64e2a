"""Rewriting: committed tokens of the block are overwritten where the model changed its mind."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dlm.core import Editor, Proposal, ScratchSpec, StepView
from dlm.errors import InvalidRequest
from dlm.unmasking.edit.revising import revisable
from dlm.unmasking.scores import (
    ConfFrom,
    confidence_of,
    needs_of,
    require_conf_from,
)


@dataclass(frozen=True, slots=True)
class Rewrite(Editor):
    """Overwrite tokens of the block that the model would now say otherwise, with a confidence above
    `threshold` (the token-to-token editing of LLaDA2.1, arXiv 2602.08676).

    A filled block stays open until a step changes nothing in it, for `post_steps` steps at the
    most. `conf_from="tempered"` reads the distribution that tokens are drawn from, as LLaDA2.1
    does.
    """

    tier = "T1"

    threshold: float = 0.9
    post_steps: int = 16
    conf_from: ConfFrom = "clean"

    scope = "block"
    one_block = True
    scratch = (ScratchSpec("rewrite.post_steps", "row", torch.long),)

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise InvalidRequest("edit", f"`threshold` must be in [0, 1], got {self.threshold}")
        if self.post_steps < 0:
            raise InvalidRequest("edit", f"`post_steps` must be at least 0, got {self.post_steps}")
        require_conf_from(self.conf_from)

    @property
    def tier_as_set(self) -> str:
        """T1 for what its reference was recorded with."""
        return "T1" if self.conf_from == "clean" else "T2"

    @property
    def needs(self) -> frozenset[str]:
        """The distribution that tokens are drawn from, if it reads that."""
        return needs_of("confidence", self.conf_from)

    def edit(self, view: StepView, proposal: Proposal) -> Proposal:
        """Overwrite, and hold the block while it changes."""
        sure = confidence_of(view, self.conf_from) > view.params.threshold
        changed = revisable(view) & (view.token != view.ids) & sure
        was_open = view.eligible.any(dim=1)
        steps = torch.where(was_open, 0, view.scratch["rewrite.post_steps"] + 1)
        hold = (was_open | changed.any(dim=1)) & (steps < view.params.post_steps[:, 0])
        return proposal.revised(replace=changed, hold=hold, scratch={"rewrite.post_steps": steps})
