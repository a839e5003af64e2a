"""From rows to one model call: plans of groups, copies of shared pages, packing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from dlm.core import ForwardPlan, ModelInfo, Packed, Phase
from dlm.core.contracts import checked_plan
from dlm.decode.group import Planned, RowGroup
from dlm.decode.packing import pack
from dlm.decode.pages import copy_on_write
from dlm.decode.view import row_info
from dlm.decode.window import KeyAges, window_of
from dlm.errors import blaming
from dlm.model.attention import takes_ragged
from dlm.model.kv_store import KVPool


class Planner:
    """Plans what the next forward computes.

    A plan, its window and its packing are reused until a block of the group changes.
    """

    def __init__(self, kv: KVPool, info: ModelInfo, device: torch.device) -> None:
        self.kv, self.info, self.device = kv, info, device
        self.ragged = takes_ragged(kv.store.storage)
        self._packed: tuple[tuple[ForwardPlan, ...], Packed] | None = None

    def plan(self, group: RowGroup) -> ForwardPlan:
        """The group's plan, made anew where a block has changed."""
        if group.planned is None:
            plan = self._with_own_pages(group, self._complete(group))
            host, blocks = group.rows.host, group.rows.host.blocks
            opening = bool((blocks.phase == Phase.OPENING).any())
            replans_next = opening or bool((blocks.phase == Phase.CLEAN).any())
            asks_host = group.parts.blocks.multi_block or bool(group.shared.aux)
            group.planned = Planned(
                plan,
                window_of(plan, host, self.device),
                row_info(group.rows),
                live=blocks.live.numpy(),
                token_forwards=plan.token_forwards,
                key_ages=None if group.parts.cache.exact else KeyAges.of(plan, host),
                opening=opening,
                syncs_every_step=replans_next or asks_host,
            )
        return group.planned.plan

    def pack(self, groups: Sequence[RowGroup]) -> Packed:
        """The plans as one model call on the ids that the canvases hold now."""
        plans = tuple(group.current.plan for group in groups)
        if self._packed is None or self._packed[0] != plans:
            shift, where = self.info.shift, self.device
            packed = pack(plans, self.kv.store, shift=shift, device=where, ragged=self.ragged)
            self._packed = plans, packed
        return self._packed[1].read([group.rows.ids for group in groups])

    def _complete(self, group: RowGroup) -> ForwardPlan:
        """The cache's plan, with the shadow tokens of editors, for every input a guide reads."""
        parts, rows = group.parts, group.rows
        with blaming("cache", parts.cache):
            plan = parts.cache.plan(rows)
        plan = checked_plan("cache", parts.cache, "plan", plan, rows.count)
        for editor in group.shared.extenders:
            with blaming("edit", editor):
                plan = editor.extend(plan, rows)
            plan = checked_plan("edit", editor, "extend", plan, rows.count)
        guide, prompt = group.shared.armed, rows.host.prompt.tolist()
        if guide is None:
            return plan
        assert self.info.mask_id is not None, "a guide that hides something needs a mask"
        with blaming("guide", guide):
            return plan.with_arms(
                guide.arms,
                lambda arm, s: guide.masked_for_arm(arm, s.q_pos, prompt[s.row]),
                self.info.mask_id,
            )

    def _with_own_pages(self, group: RowGroup, plan: ForwardPlan) -> ForwardPlan:
        pages = copy_on_write(self.kv, plan)
        if pages is not plan.pages:
            group.rows = replace(group.rows, host=replace(group.rows.host, pages=pages))
        return replace(plan, pages=pages)
