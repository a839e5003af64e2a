"""WINO's narrow out: shadow tokens judge what was committed, in the same forward."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from dlm.core import (
    Editor,
    Extra,
    ForwardPlan,
    ModelInfo,
    Phase,
    Proposal,
    Rows,
    ScratchSpec,
    Segment,
    StepView,
    Unmasker,
    bound,
    span,
)
from dlm.errors import InvalidRequest
from dlm.unmasking.edit.revising import refuse_schedule, revisable
from dlm.unmasking.scores import top


@dataclass(frozen=True, slots=True)
class NarrowOut(Editor):
    """Open tokens of the block again whose shadows give them less than `threshold` (the revocation
    of WINO, arXiv 2507.18578; used with `wide_in`).

    Each position of the live block has a shadow: a MASK at the same place that sees everything but
    that place itself, so that the token there is judged by all the rest. Shadows are computed in
    every step, beside the block: they cost token-forwards, and no forward. A step reopens fewer
    tokens than the step before has committed (the first one fewer than `first`), the least likely
    first, and nothing where it commits one token itself, so that the block gets fuller.
    """

    tier = "T2"

    threshold: float = 0.9
    first: int = 30
    mask_id: int = bound(-1)

    scope = "block"
    one_block = True
    scratch = (ScratchSpec("narrow_out.last", "row", torch.long),)

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise InvalidRequest("edit", f"`threshold` must be in [0, 1], got {self.threshold}")
        if self.first < 1:
            raise InvalidRequest("edit", f"`first` must be at least 1, got {self.first}")

    @property
    def needs(self) -> frozenset[str]:
        """The probability of the tokens that are there, as their shadows see it."""
        return frozenset({"prob_current"})

    def bind(self, info: ModelInfo) -> NarrowOut:
        """Take the id of MASK. Raises `InvalidRequest` where no shadow can stand."""
        if info.shift or info.mask_id is None:
            raise InvalidRequest(
                "edit",
                "narrow_out needs a model with a mask whose rows predict their own position: "
                "a shadow stands at the position that it predicts",
            )
        return replace(self, mask_id=info.mask_id)

    def refuses(self, unmask: Unmasker) -> str | None:
        """A schedule has not counted the positions that are reopened."""
        return refuse_schedule(unmask)

    def extend(self, plan: ForwardPlan, rows: Rows) -> ForwardPlan:
        """The plan with a shadow for every position of each row's live block."""
        blocks = rows.host.blocks
        segments = []
        for s in plan.segments:
            ((column,),) = (blocks.phase[s.row] <= Phase.OPEN).nonzero(as_tuple=True)
            start = max(int(blocks.start[s.row, column]), int(rows.host.prompt[s.row]))
            end = int(blocks.end[s.row, column])
            if len(s.predict) and int(s.predict[-1]) == end - 1:
                s = s._replace(extra=self._shadows(s, start, end))
            segments.append(s)
        return replace(plan, segments=tuple(segments))

    def _shadows(self, segment: Segment, start: int, end: int) -> Extra:
        pos = span(start, end)
        others = pos[:, None] != span(0, segment.keys)[None, :]
        mask = np.concatenate((others, np.ones((len(pos), len(pos)), dtype=np.bool_)), axis=1)
        return Extra(np.full_like(pos, self.mask_id), pos, mask)

    def edit(self, view: StepView, proposal: Proposal) -> Proposal:
        """Reopen what the shadows doubt, if the step commits more than one position."""
        assert view.stats.prob_current is not None
        accepted = proposal.commit.sum(dim=1)
        doubted = revisable(view) & (view.stats.prob_current < view.params.threshold)
        (step,) = view.of_first_block(view.blocks.step)
        last = torch.where(step == 0, view.params.first, view.scratch["narrow_out.last"][:, None])
        remask = top(-view.stats.prob_current, doubted, (last - 1).clamp_min(0))
        return proposal.revised(
            remask=remask & (accepted > 1)[:, None], scratch={"narrow_out.last": accepted}
        )
