"""From rows to one model call: plans of groups, copies of shared pages, packing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from dlm.core import STATISTICS, CacheManager, ForwardPlan, ModelInfo, Packed, Phase, Rows
from dlm.core.contracts import checked_plan, guarded
from dlm.decode.apply import edit_budget
from dlm.decode.group import RowGroup
from dlm.decode.leaders import Leaders, billed_once, confirmed, with_shared, without_followers
from dlm.decode.packing import pack
from dlm.decode.pages import copy_on_write
from dlm.decode.view import row_info
from dlm.decode.window import KeyAges, Planned, window_of
from dlm.errors import blaming, is_foreign
from dlm.model.attention import takes_ragged
from dlm.model.kv_store import KVPool


class Planner:
    """Plans what the next forward computes.

    A plan, its window and its packing are reused until a block of the group changes.
    """

    def __init__(self, kv: KVPool, info: ModelInfo, device: torch.device) -> None:
        self.kv, self.info, self.device = kv, info, device
        self.ragged = takes_ragged(kv.store.storage)
        self._packed: tuple[Sequence[Planned], Packed] | None = None

    def plan(self, group: RowGroup) -> Planned:
        """The group's plan, made anew where a block has changed."""
        if group.planned is None:
            plan = self._with_own_pages(group, self._complete(group))
            leaders = None if group.leaders is None else confirmed(plan, group.leaders)
            group.planned = self._planned(group, plan, leaders)
        return group.planned

    def pack(self, groups: Sequence[RowGroup], plans: Sequence[Planned]) -> Packed:
        """The plans as one model call on the ids that the canvases hold now."""
        if self._packed is None or self._packed[0] != plans:
            packed = pack(
                [planned.computed for planned in plans],
                self.kv.store,
                shift=self.info.shift,
                device=self.device,
                ragged=self.ragged,
            )
            if any(planned.leaders for planned in plans):
                packed = with_shared(packed, plans, self.kv.store)
            self._packed = plans, packed
        rows = [group.rows for group in groups]
        return self._packed[1].read([r.ids for r in rows], [r.draft for r in rows])

    def _planned(self, group: RowGroup, plan: ForwardPlan, leaders: Leaders | None) -> Planned:
        """All that holds as long as the plan does."""
        computed = plan
        if leaders is not None:
            plan, computed = billed_once(plan, leaders), without_followers(plan, leaders)
        parts, shared, host = group.parts, group.shared, group.rows.host
        window, blocks = window_of(plan, host, self.device), host.blocks
        opening = bool((blocks.phase == Phase.OPENING).any())
        asks = bool(shared.aux) or shared.asks is not None
        replans_next = opening or bool((blocks.phase == Phase.CLEAN).any())
        may_wait = parts.edit or (parts.clock and is_foreign(parts.unmask))
        apart = parts.guide or window.has_shadows or "prob_current" in shared.needs
        return Planned(
            plan,
            computed,
            leaders,
            window,
            row_info(group.rows),
            step=group.rows.step[:, None].expand_as(window.pos),
            host_steps=(host.step.numpy(), blocks.step.numpy()),
            joint_needs=None if apart else shared.needs & STATISTICS,
            live=blocks.live.numpy(),
            token_forwards=computed.token_forwards,
            key_ages=None if parts.cache.exact else KeyAges.of(plan, host),
            edit_budget=edit_budget(group) if may_wait else None,
            opening=opening,
            syncs_every_step=replans_next or parts.blocks.multi_block or asks,
        )

    def _complete(self, group: RowGroup) -> ForwardPlan:
        """The cache's plan, with the shadow tokens of parts, for every input a guide reads."""
        rows = group.rows
        plan = self._cache_plan(rows, group.caches)
        for extend in group.shared.extend:
            plan = extend(plan, rows)
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

    def _cache_plan(self, rows: Rows, caches: Sequence[CacheManager]) -> ForwardPlan:
        """The plan of the rows' caches; where their numbers differ, each plans its own rows."""
        members: list[tuple[CacheManager, list[int]]] = []
        for row, cache in enumerate(caches):
            own = next((found for other, found in members if other == cache), None)
            if own is None:
                members.append((cache, [row]))
            else:
                own.append(row)
        plans: list[tuple[list[int], ForwardPlan]] = []
        for cache, own in members:
            mine = rows
            if len(members) > 1:
                scratch = {spec.name: rows.scratch[spec.name] for spec in cache.scratch}
                mine = replace(rows, scratch=scratch).select(torch.tensor(own))
            plans.append((own, guarded("cache", cache, "plan", checked_plan)(mine)))
        if len(plans) == 1:
            return plans[0][1]
        return ForwardPlan.joined(plans, rows.host.pages, rows.host.length.numpy())

    def _with_own_pages(self, group: RowGroup, plan: ForwardPlan) -> ForwardPlan:
        pages = copy_on_write(self.kv, plan)
        if pages is not plan.pages:
            group.rows = replace(group.rows, host=replace(group.rows.host, pages=pages))
        return replace(plan, pages=pages)
