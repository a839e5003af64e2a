"""Auxiliary models: a causal model that reads what a diffusion model is about to write.

It runs between the draw and the decisions, in a plan of its own on pages of its own. What it says
reaches the parts whose `needs` name it (Guided Diffusion, arXiv 2505.21467).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dlm.core import (
    AuxView,
    ForwardPlan,
    Kind,
    Model,
    Rows,
    ScratchSpec,
    Segment,
    StepView,
    pack,
    span,
)
from dlm.engine.memory import own_written
from dlm.model.kv import KVPool


@dataclass(frozen=True, slots=True, eq=False)
class Auxiliary:
    """A causal model with its own keys and values.

    `ids [V]`: its id for each id of the diffusion model, -1 for those that it lacks (None: the same
    ids). `mask_id`: what it must never say, in ids of the diffusion model. `name` is what `needs`
    calls it.
    """

    name: str
    model: Model
    kv: KVPool
    max_length: int
    ids: Tensor | None = None
    mask_id: int | None = None

    @property
    def made_of(self) -> ScratchSpec:
        """The ids that each stored key was made from; -1 is none."""
        return ScratchSpec(f"kv_ids.{self.name}", "token", torch.long, -1)

    def read(self, rows: Rows, view: StepView, line: int) -> tuple[Rows, AuxView]:
        """Read every canvas with the drawn tokens in its open positions.

        `line`: the model's line in the page tables. Returns the rows with the pages that are now
        their own, and what the model says.
        """
        drafted = view.scored & (view.kind >= Kind.MASK)
        canvas = rows.ids.scatter(1, view.pos, torch.where(drafted, view.token, view.ids))
        known = rows.scratch[self.made_of.name]
        plan = self._plan(rows, view, drafted, known == canvas, line)
        pages = rows.host.pages.clone()
        pages[:, line] = plan.pages[:, 0]
        rows = replace(rows, host=replace(rows.host, pages=pages))
        if not plan.segments:
            return rows, _silent(view)
        for s in plan.segments:
            at = s.q_pos.to(rows.device)
            known[s.row, at] = canvas[s.row, at]
        packed = pack([plan], self.kv, shift=True, device=rows.device).read([self._own(canvas)])
        logp = self._ours(torch.log_softmax(self.model(packed, self.kv), dim=1))
        return rows, _said(view, drafted, logp, plan.token_forwards)

    def _plan(
        self, rows: Rows, view: StepView, drafted: Tensor, clean: Tensor, line: int
    ) -> ForwardPlan:
        """Per row, everything from the first outdated key to the last drafted position.

        A causal key depends on all ids before it, so that what follows an outdated one is
        outdated, too. The query before the first draft is always there: it predicts that draft.
        """
        segments = []
        drafts, pos, fresh = drafted.cpu(), view.pos.cpu(), clean.cpu()
        for row in range(rows.count):
            predict = pos[row, drafts[row]]
            if len(predict) == 0:
                continue
            first, last = int(predict[0]), int(predict[-1])
            outdated = (~fresh[row, :last]).nonzero()
            start = min(int(outdated[0]) if len(outdated) else last, max(first - 1, 0))
            queries = span(start, max(last, 1))
            segments.append(Segment(row, 0, queries, queries + 1, write=True, predict=predict))
        pages = rows.host.pages[:, line : line + 1]
        plan = ForwardPlan(tuple(segments), ("aux",) * rows.count, pages, rows.capacity)
        return replace(plan, pages=own_written(self.kv, plan))

    def _own(self, canvas: Tensor) -> Tensor:
        """The canvas in this model's ids; what it lacks stands as its id 0."""
        return canvas if self.ids is None else self.ids[canvas].clamp_min(0)

    def _ours(self, logp: Tensor) -> Tensor:
        """The log probabilities of the diffusion model's ids, MASK struck out."""
        if self.ids is not None:
            logp = logp[:, self.ids.clamp_min(0)].masked_fill(self.ids < 0, -torch.inf)
        if self.mask_id is not None:
            logp.select(1, self.mask_id).fill_(-torch.inf)
        return logp


def _said(view: StepView, drafted: Tensor, logp: Tensor, tokens: list[int]) -> AuxView:
    """Statistics of the log probabilities `[N, V]` of all drafted columns, row by row."""
    row = (drafted.flatten().cumsum(0) - 1).view_as(drafted).masked_fill(~drafted, 0)
    best, token = logp.max(dim=1)
    return AuxView(
        scored=drafted,
        token=token[row].masked_fill(~drafted, -1),
        c=best[row].exp().masked_fill(~drafted, 0.0),
        c_draft=logp[row, view.token].exp().masked_fill(~drafted, 0.0),
        logit_row=row,
        logits=logp,
        tokens=tokens,
    )


def _silent(view: StepView) -> AuxView:
    """Nothing was drafted."""
    zero, nowhere = torch.zeros_like(view.c), torch.zeros_like(view.scored)
    none = torch.full_like(view.token, -1)
    idle = [0] * view.pos.shape[0]
    return AuxView(nowhere, none, zero, zero, torch.zeros_like(none), view.logits[:0], idle)
