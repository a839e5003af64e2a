"""Auxiliary models: a causal model that reads what a diffusion model is about to write.

It runs between the draw and the decisions, in a plan of its own on pages of its own. Its report
reaches the parts whose `needs` name it (Guided Diffusion, arXiv 2505.21467).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from torch import Tensor

from dlm.core import AuxView, ForwardPlan, Kind, Rows, ScratchSpec, Segment, StepView, span
from dlm.decode.group import RowGroup
from dlm.decode.packing import pack
from dlm.decode.pages import copy_on_write
from dlm.errors import InvalidRequest
from dlm.model.kv_store import KVPool

NEVER: Final = -1
"""Stands for the id of a key that is not stored."""


@dataclass(frozen=True, slots=True, eq=False)
class AuxiliaryModel:
    """A second model with its own keys and values.

    name: as `needs` calls it
    model, kv: the decoder, and its keys and values
    max_length: positions of its longest canvas
    ids: its id for each id of the diffusion model, `[V]`, -1 for ids that it lacks (None: the same)
    mask_id: the mask id of the diffusion model
    lacks: the ids of the diffusion model that it lacks, on the host
    """

    name: str
    model: Any
    kv: KVPool
    max_length: int
    ids: Tensor | None = None
    mask_id: int | None = None
    lacks: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        """Keep the ids without a partner on the host, where prompts are checked."""
        lost = [] if self.ids is None else (self.ids < 0).nonzero().flatten().tolist()
        object.__setattr__(self, "lacks", frozenset(lost))

    @property
    def scratch(self) -> tuple[ScratchSpec, ...]:
        """The tensors that it keeps of each row between steps."""
        return ()

    def check_ids(self, param: str, ids: Sequence[int]) -> None:
        """Raise `InvalidRequest` when ids are among those that this model lacks."""
        lost = [token for token in dict.fromkeys(ids) if token in self.lacks]
        if lost:
            raise InvalidRequest(
                param, f"the auxiliary model {self.name!r} has no partner for the ids {lost[:8]}"
            )

    def own_ids(self, canvas: Tensor) -> Tensor:
        """The canvas in this model's ids. An id that it lacks, which has no probability here, is
        read as its id 0.
        """
        return canvas if self.ids is None else self.ids[canvas].clamp_min(0)

    def for_model_ids(self, logp: Tensor) -> Tensor:
        """The log-probabilities `[N, V]` of the diffusion model's ids; -inf for those it lacks."""
        if self.ids is None:
            return logp
        return logp[:, self.ids.clamp_min(0)].masked_fill(self.ids < 0, -torch.inf)


class Auxiliary(AuxiliaryModel):
    """A causal model, which reads drafts."""

    __slots__ = ()

    @property
    def kv_ids_spec(self) -> ScratchSpec:
        """`kv_ids` of this model: the ids that each stored key was made from."""
        return ScratchSpec(f"kv_ids.{self.name}", "token", torch.long, NEVER)

    @property
    def scratch(self) -> tuple[ScratchSpec, ...]:
        """The ids of its keys."""
        return (self.kv_ids_spec,)

    def read(self, group: RowGroup, view: StepView, line: int) -> AuxView:
        """Read every canvas with the drawn tokens in its open positions and report on them.

        `line`: the model's page row in the tables. Shared pages that it writes become the rows'
        own; `aux_tokens` of the group counts the computed tokens.
        """
        rows = group.rows
        drafted = view.scored & (view.kind >= Kind.MASK)
        canvas = rows.ids.scatter(1, view.pos, torch.where(drafted, view.token, view.ids))
        known = rows.scratch[self.kv_ids_spec.name]
        plan = self._plan(rows, view, drafted, known == canvas, line)
        if not plan.segments:
            return _empty_report(view)
        plan = replace(plan, pages=copy_on_write(self.kv, plan))
        pages = rows.host.pages.clone()
        pages[:, line] = plan.pages[:, 0]
        group.rows = replace(rows, host=replace(rows.host, pages=pages))
        store, canvases = self.kv.store, [self.own_ids(canvas)]
        packed = pack([plan], store, shift=True, device=rows.device).read(canvases)
        logp = self.for_model_ids(torch.log_softmax(self.model(packed, store), dim=1))
        if self.mask_id is not None:
            logp.select(1, self.mask_id).fill_(-torch.inf)
        for s in plan.segments:
            first, end = int(s.q_pos[0]), int(s.q_pos[-1]) + 1
            known[s.row, first:end] = canvas[s.row, first:end]
            known[s.row, end:] = NEVER  # these keys have seen other ids before them
        group.aux_tokens[self.name] = plan.token_forwards
        return _report(view, drafted, logp)

    def _plan(
        self, rows: Rows, view: StepView, drafted: Tensor, clean: Tensor, line: int
    ) -> ForwardPlan:
        """Per row, everything from the first outdated key to the last drafted position.

        A causal key depends on all ids before it, so that what follows an outdated one is
        outdated, too. The query before the first draft is always there: it predicts that draft.
        """
        segments = []
        drafts, pos, fresh = (t.cpu().numpy() for t in (drafted, view.pos, clean))
        for row in range(rows.count):
            predict = pos[row, drafts[row]]
            if len(predict) == 0:
                continue
            first, last = int(predict[0]), int(predict[-1])
            (outdated,) = (~fresh[row, :last]).nonzero()
            start = min(int(outdated[0]) if len(outdated) else last, max(first - 1, 0))
            queries = span(start, max(last, 1))
            segments.append(Segment(row, 0, queries, queries + 1, write=True, predict=predict))
        pages = rows.host.pages[:, line : line + 1]
        purposes, lengths = ("aux",) * rows.count, rows.host.length.numpy()
        return ForwardPlan(tuple(segments), purposes, pages, rows.capacity, lengths=lengths)


def _report(view: StepView, drafted: Tensor, logp: Tensor) -> AuxView:
    """Statistics of the log probabilities `[N, V]` of all drafted columns, row by row."""
    row = (drafted.flatten().cumsum(0) - 1).view_as(drafted).masked_fill(~drafted, 0)
    best, token = logp.max(dim=1)
    return AuxView(
        scored=drafted,
        token=token[row].masked_fill(~drafted, -1),
        confidence=best[row].exp().masked_fill(~drafted, 0.0),
        draft_confidence=logp[row, view.token].exp().masked_fill(~drafted, 0.0),
        logit_row=row,
        logits=logp,
    )


def _empty_report(view: StepView) -> AuxView:
    """Nothing was drafted."""
    zero, nowhere = torch.zeros_like(view.confidence), torch.zeros_like(view.scored)
    none = torch.full_like(view.token, -1)
    return AuxView(nowhere, none, zero, zero, torch.zeros_like(none), view.logits[:0])
