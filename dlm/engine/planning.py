"""From rows to one model call: plans of cohorts, copies of shared pages, packing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from dlm.core import ForwardPlan, ModelInfo, Packed, Phase, Window, pack
from dlm.engine.cohort import Cohort
from dlm.model.kv import KVPool


class Planner:
    """Plans what the next forward computes.

    A plan, its window and its packing are reused until a block of the cohort changes.
    """

    def __init__(self, kv: KVPool, info: ModelInfo, device: torch.device) -> None:
        self.kv, self.info, self.device = kv, info, device
        self._packed: tuple[tuple[ForwardPlan, ...], Packed] | None = None

    def plan(self, cohort: Cohort) -> ForwardPlan:
        """The cohort's plan, made anew where a block has changed."""
        if cohort.plan is None:
            plan = self._with_arms(cohort, cohort.parts.cache.plan(cohort.rows))
            cohort.plan = self._with_own_pages(cohort, plan)
            cohort.window = Window.of(cohort.plan, cohort.rows.host, self.device)
            cohort.live = cohort.rows.host.blocks.live
            phase = cohort.rows.host.blocks.phase
            cohort.opening = bool((phase == Phase.OPENING).any())
            cohort.moving = cohort.opening or bool((phase == Phase.CLEAN).any())
        return cohort.plan

    def pack(self, cohorts: Sequence[Cohort], plans: Sequence[ForwardPlan]) -> Packed:
        """The plans as one model call on the ids that the canvases hold now."""
        key = tuple(plans)
        if self._packed is None or self._packed[0] != key:
            self._packed = key, pack(plans, self.kv, shift=self.info.shift, device=self.device)
        return self._packed[1].read([cohort.rows.ids for cohort in cohorts])

    def _with_arms(self, cohort: Cohort, plan: ForwardPlan) -> ForwardPlan:
        """The plan for every model input that a guide reads."""
        guide, prompt = cohort.parts.armed, cohort.rows.host.prompt.tolist()
        if guide is None or self.info.mask_id is None:
            return plan
        return plan.with_arms(
            guide.arms, lambda arm, s: guide.conceal(arm, s.q_pos, prompt[s.row]), self.info.mask_id
        )

    def _with_own_pages(self, cohort: Cohort, plan: ForwardPlan) -> ForwardPlan:
        """Copy the shared pages that the plan writes (copy on write after a fork)."""
        if not self.kv.shared:
            return plan
        pages, size = plan.pages.clone(), self.kv.page_size
        for s in plan.segments:
            if s.write:
                column, counts = torch.div(s.q_pos, size, rounding_mode="floor").unique(
                    return_counts=True
                )
                owned = self.kv.own(pages[s.row, s.arm, column].tolist(), (counts == size).tolist())
                pages[s.row, s.arm, column] = torch.tensor(owned)
        cohort.rows = replace(cohort.rows, host=replace(cohort.rows.host, pages=pages))
        return replace(plan, pages=pages)
