"""WINO (arXiv 2507.18578): unmask widely, and let shadow tokens revoke what was committed.

Each position of the live block has a shadow, a MASK at the same place that sees everything but
that place itself, so that what stands there is judged by all the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from dlm.core import (
    Editor,
    Extra,
    ForwardPlan,
    Kind,
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
from dlm.unmasking.scores import top


@dataclass(frozen=True)
class WideIn(Unmasker):
    """Commit all that is sure, up to a share of what is open, at least `least` and at most `most`;
    the best position where nothing is.
    """

    threshold: float = 0.6
    share: float = 0.7
    least: int = 5
    most: int = 20

    def propose(self, view: StepView) -> Proposal:
        params, masks = view.params, view.eligible.sum(dim=1, keepdim=True)
        cap = (masks * params.share).long().maximum(params.least).minimum(params.most)
        sure = view.eligible & (view.confidence > params.threshold)
        return Proposal(sure & top(view.confidence, view.eligible, cap))


@dataclass(frozen=True)
class NarrowOut(Editor):
    """Reopen what the shadows doubt, if the step commits more than one position: fewer than the
    last step has committed, so that the block gets fuller.
    """

    threshold: float = 0.9
    first: int = 30
    mask_id: int = bound(-1)

    scope = "block"
    needs = frozenset({"prob_current"})
    scratch = (ScratchSpec("wino.last", "row", torch.long),)

    def bind(self, info: ModelInfo) -> NarrowOut:
        if info.shift or info.mask_id is None:
            raise InvalidRequest("edit", "shadows stand at the position that they predict")
        return replace(self, mask_id=info.mask_id)

    def extend(self, plan: ForwardPlan, rows: Rows) -> ForwardPlan:
        """A shadow for every position of the row's live block."""
        blocks = rows.host.blocks
        segments = []
        for s in plan.segments:
            ((column,),) = (blocks.phase[s.row] <= Phase.OPEN).nonzero(as_tuple=True)
            start, end = int(blocks.start[s.row, column]), int(blocks.end[s.row, column])
            if len(s.predict) and int(s.predict[-1]) == end - 1:
                s = s._replace(extra=self._shadows(s, start, end))
            segments.append(s)
        return replace(plan, segments=tuple(segments))

    def _shadows(self, segment: Segment, start: int, end: int) -> Extra:
        pos = span(start, end)
        places = span(0, segment.keys)
        others = pos[:, None] != places[None, :]
        mask = np.concatenate((others, np.ones((len(pos), len(pos)), dtype=np.bool_)), axis=1)
        return Extra(np.full_like(pos, self.mask_id), pos, mask)

    def edit(self, view: StepView, proposal: Proposal) -> Proposal:
        accepted = proposal.commit.sum(dim=1)
        inside = view.pos >= view.in_block(view.blocks.start)
        judged = (view.kind == Kind.COMMITTED) & view.scored & inside
        assert view.stats.prob_current is not None
        doubted = judged & (view.stats.prob_current < view.params.threshold)
        (step,) = view.of_first_block(view.blocks.step)
        last = torch.where(step == 0, view.params.first, view.scratch["wino.last"][:, None])
        most = (last - 1).clamp_min(0)
        remask = top(-view.stats.prob_current, doubted, most) & (accepted > 1)[:, None]
        return proposal._replace(remask=remask, scratch={"wino.last": accepted})
