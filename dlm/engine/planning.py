"""From rows to one model call: plans of cohorts, copies of shared pages, packing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from dlm.core import ForwardPlan, ModelInfo, Packed, Phase, Window, pack
from dlm.engine.answers import checked_plan
from dlm.engine.cohort import Cohort, Planned
from dlm.engine.memory import copy_on_write
from dlm.engine.reuse import Reuse
from dlm.errors import blaming
from dlm.model.attention import takes_ragged
from dlm.model.kv_store import KVPool


class Planner:
    """Plans what the next forward computes.

    A plan, its window and its packing are reused until a block of the cohort changes.
    """

    def __init__(self, kv: KVPool, info: ModelInfo, device: torch.device) -> None:
        self.kv, self.info, self.device = kv, info, device
        self.ragged = takes_ragged(kv.store.storage)
        self._packed: tuple[tuple[ForwardPlan, ...], Packed] | None = None

    def plan(self, cohort: Cohort) -> ForwardPlan:
        """The cohort's plan, made anew where a block has changed."""
        if cohort.planned is None:
            plan = self._with_own_pages(cohort, self._complete(cohort))
            host, blocks = cohort.rows.host, cohort.rows.host.blocks
            opening = bool((blocks.phase == Phase.OPENING).any())
            cohort.planned = Planned(
                plan,
                Window.of(plan, host, self.device),
                live=blocks.live,
                reuse=None if cohort.parts.cache.exact else Reuse.of(plan, host),
                opening=opening,
                moving=opening or bool((blocks.phase == Phase.CLEAN).any()),
            )
        return cohort.planned.plan

    def pack(self, cohorts: Sequence[Cohort], plans: Sequence[ForwardPlan]) -> Packed:
        """The plans as one model call on the ids that the canvases hold now."""
        key = tuple(plans)
        if self._packed is None or self._packed[0] != key:
            shift, where = self.info.shift, self.device
            packed = pack(plans, self.kv.store, shift=shift, device=where, ragged=self.ragged)
            self._packed = key, packed
        return self._packed[1].read([cohort.rows.ids for cohort in cohorts])

    def _complete(self, cohort: Cohort) -> ForwardPlan:
        """The cache's plan, with the shadow tokens of editors, for every input a guide reads."""
        parts, rows = cohort.parts, cohort.rows
        with blaming("cache", parts.cache):
            plan = parts.cache.plan(rows)
        plan = checked_plan("cache", parts.cache, "plan", plan, rows.count)
        for editor in parts.extenders:
            with blaming("edit", editor):
                plan = editor.extend(plan, rows)
            plan = checked_plan("edit", editor, "extend", plan, rows.count)
        guide, prompt = parts.armed, rows.host.prompt.tolist()
        if guide is None:
            return plan
        assert self.info.mask_id is not None, "a guide that hides something needs a mask"
        with blaming("guide", guide):
            return plan.with_arms(
                guide.arms,
                lambda arm, s: guide.conceal(arm, s.q_pos, prompt[s.row]),
                self.info.mask_id,
            )

    def _with_own_pages(self, cohort: Cohort, plan: ForwardPlan) -> ForwardPlan:
        pages = copy_on_write(self.kv, plan)
        if pages is not plan.pages:
            cohort.rows = replace(cohort.rows, host=replace(cohort.rows.host, pages=pages))
        return replace(plan, pages=pages)
