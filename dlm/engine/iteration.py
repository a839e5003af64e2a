"""The iteration manager: the only loop. It owns progress, pins, and what a step may change.

Rules only answer; whatever touches the rows happens here, in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from dlm.core import (
    BLOCK_COLUMNS,
    BlockTable,
    ForwardPlan,
    Frame,
    HostRows,
    Kind,
    Model,
    ModelInfo,
    Packed,
    Phase,
    Progress,
    Proposal,
    StepView,
    Window,
    pack,
)
from dlm.engine.apply import Op, resolve
from dlm.engine.cohort import Cohort
from dlm.engine.report import StepReport, read_changes
from dlm.engine.stats import draw_tokens, row_stats, token_uniforms
from dlm.model.kv import KVPool


class Changes(NamedTuple):
    """What a step did to the rows of a cohort: `view` with the new ids and kinds, and `op [R, W]`.

    `left [R, 8]`: open positions of each block · `stopped [R]`: 0, or 1 + the number of the stop
    rule that fired.
    """

    view: StepView
    op: Tensor
    left: Tensor
    stopped: Tensor


class IterationManager:
    """Runs steps over cohorts of rows. Holds the model, the pool, and the packing of the current
    plans.
    """

    def __init__(self, model: Model, kv: KVPool, info: ModelInfo, device: torch.device) -> None:
        self.model, self.kv, self.info, self.device = model, kv, info, device
        self.process = info.process
        self._packed: tuple[tuple[ForwardPlan, ...], Packed] | None = None

    def step(self, cohorts: Sequence[Cohort]) -> list[StepReport]:
        """One forward over all cohorts and the decisions taken on it; what happened, cohort by
        cohort.
        """
        reports = []
        plans = [self._plan(cohort) for cohort in cohorts]
        for cohort, logits in zip(cohorts, self._forward(cohorts, plans), strict=True):
            frame = self._frame(cohort)
            guided = self._guide(cohort, logits, frame)
            view = self._view(cohort, guided, frame)
            view = self._open(cohort, view)
            proposal = self._propose(cohort, view)
            proposal = self._edit(cohort, view, proposal)
            changes = self._apply(cohort, view, proposal)
            changes = self._stop(cohort, changes)
            reports.append(self._close(cohort, changes))
        return reports

    def admit(self, cohort: Cohort) -> None:
        """Open the first block of new rows."""
        rows = cohort.rows
        self._advance(
            cohort,
            torch.zeros_like(rows.host.blocks.start),
            torch.ones(rows.count, dtype=torch.bool),
        )

    def _plan(self, cohort: Cohort) -> ForwardPlan:
        """The cohort's plan, made anew where a block has changed; every row is billed for its
        part.
        """
        if cohort.plan is None:
            plan = self._with_arms(cohort, cohort.parts.cache.plan(cohort.rows))
            cohort.plan = self._with_own_pages(cohort, plan)
            cohort.window = Window.of(cohort.plan, cohort.rows.host, self.device)
            cohort.live = cohort.rows.host.blocks.live
            phase = cohort.rows.host.blocks.phase
            cohort.opening = bool((phase == Phase.OPENING).any())
            cohort.moving = cohort.opening or bool((phase == Phase.CLEAN).any())
        plan = cohort.plan
        for ledger, purpose, positions in zip(
            cohort.ledgers, plan.purposes, plan.token_forwards, strict=True
        ):
            ledger.record(purpose, positions, plan.arms)
        return plan

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

    def _forward(self, cohorts: Sequence[Cohort], plans: Sequence[ForwardPlan]) -> Sequence[Tensor]:
        """One model call: logits `[arms, N, V]` of each cohort. Remembers the ids that the new
        keys are made from.
        """
        key = tuple(plans)
        if self._packed is None or self._packed[0] != key:
            self._packed = key, pack(plans, self.kv, shift=self.info.shift, device=self.device)
        packed = self._packed[1].read([c.rows.ids for c in cohorts])
        for cohort in cohorts:
            rows, written = cohort.rows, cohort.shown.written
            rows.kv_ids.view(-1).index_copy_(0, written, rows.ids.view(-1).index_select(0, written))
        logits = self.model(packed, self.kv).split(packed.sizes)
        return [
            part.unflatten(0, (plan.arms, -1)) for part, plan in zip(logits, plans, strict=True)
        ]

    def _frame(self, cohort: Cohort) -> Frame:
        rows, window = cohort.rows, cohort.shown
        return Frame(
            window,
            rows.ids.gather(1, window.pos),
            rows.kind.gather(1, window.pos),
            rows.step,
            rows.blocks,
        )

    def _guide(self, cohort: Cohort, logits: Tensor, frame: Frame) -> Tensor:
        """The guides in order; what is left is one arm, `[N, V]`."""
        for guide in cohort.parts.guide:
            logits = guide(logits, frame, cohort.knob(guide))
        return logits[0]

    def _view(self, cohort: Cohort, logits: Tensor, frame: Frame) -> StepView:
        """Draw a token for every scored position and read the statistics that the parts need."""
        rows, window, needs = cohort.rows, frame.window, cohort.needs
        current = frame.ids.take(window.slot) if "c_current" in needs else None
        stats = row_stats(logits, self.info.mask_id, needs, current)
        if cohort.sampler is not None:
            u = token_uniforms(rows.seed, rows.path, window.pos, rows.step).take(window.slot)
            stats = draw_tokens(stats, cohort.sampler, window.row, u)
        token, c, entropy, margin, c_current = (
            None if s is None else s.take(window.logit_row) for s in stats[:5]
        )
        assert token is not None
        assert c is not None
        is_open = frame.kind >= Kind.MASK
        return StepView(
            *frame,
            eligible=is_open & window.scored,
            force=is_open & window.full,
            token=token,
            c=c,
            entropy=entropy,
            margin=margin,
            c_current=c_current,
            logits=stats.logits,
            conf_prev=rows.conf.gather(1, window.pos),
            born=rows.born.gather(1, window.pos),
            prompt=rows.prompt,
            length=rows.length,
            seed=rows.seed,
            path=rows.path,
            scratch=rows.scratch,
            knob=None,
        )

    def _open(self, cohort: Cohort, view: StepView) -> StepView:
        """Where a block opens, read its end from the logits, narrow what is eligible and count
        its masks.
        """
        if not cohort.opening:
            return view
        scheduler, table = cohort.parts.blocks, cohort.rows.host.blocks
        end = scheduler.close_at(view._replace(knob=cohort.knob(scheduler)))
        opens = table.phase == Phase.OPENING
        table = replace(table, end=torch.where(opens, end.cpu()[:, None], table.end))
        inside = view.pos < table.end.to(self.device).gather(1, view.block)
        view = view._replace(eligible=view.eligible & inside, force=view.force & inside)
        table = replace(
            table,
            masks=torch.where(opens, _per_block(view.eligible, view.block).cpu(), table.masks),
        )
        cohort.rows = cohort.rows.with_blocks(table)
        return view._replace(blocks=cohort.rows.blocks)

    def _propose(self, cohort: Cohort, view: StepView) -> Proposal:
        """What the unmasker commits, among what is eligible; at least the most confident
        position of a row.
        """
        rule = cohort.parts.unmask
        proposal = rule.propose(view._replace(knob=cohort.knob(rule)))
        commit = proposal.commit & view.eligible
        if not cohort.parts.clock:
            commit = commit | _forced(view, commit)
        return proposal._replace(commit=commit)

    def _edit(self, cohort: Cohort, view: StepView, proposal: Proposal) -> Proposal:
        for editor in cohort.parts.edit:
            proposal = editor.edit(view._replace(knob=cohort.knob(editor)), proposal)
        return proposal

    def _apply(self, cohort: Cohort, view: StepView, proposal: Proposal) -> Changes:
        """Write the outcome of the proposal into the rows."""
        rows, pos = cohort.rows, view.pos
        ids, kind, op, written = resolve(view, proposal, self.process)
        rows.ids.scatter_(1, pos, ids)
        rows.kind.scatter_(1, pos, kind)
        rows.conf.scatter_(1, pos, torch.where(written, view.c, view.conf_prev))
        rows.born.scatter_(1, pos, torch.where(written, rows.step[:, None], view.born))
        if cohort.parts.edit:
            rows.edits.scatter_add_(1, pos, (op >= Op.REMASK).to(rows.edits.dtype))
        for name, value in (proposal.scratch or {}).items():
            rows.scratch[name].copy_(value)
        reopened = op == Op.REMASK
        left = _per_block((view.eligible & (kind >= Kind.MASK)) | reopened, view.block)
        stopped = torch.zeros_like(rows.step)
        return Changes(view._replace(ids=ids, kind=kind), op, left, stopped)

    def _stop(self, cohort: Cohort, changes: Changes) -> Changes:
        stopped = changes.stopped
        for number, rule in enumerate(cohort.parts.stop, start=1):
            done = rule(cohort.rows, changes.view._replace(knob=cohort.knob(rule))).done
            stopped = torch.where(done & (stopped == 0), number, stopped)
        return changes._replace(stopped=stopped)

    def _close(self, cohort: Cohort, changes: Changes) -> StepReport:
        """The sync: advance clocks, close and open blocks where that is due, and tell the host
        what happened.
        """
        rows, table, view = cohort.rows, cohort.rows.host.blocks, changes.view
        rows.step.add_(1)
        rows.blocks.step.add_(cohort.shown.live)
        table.step.add_(cohort.live)
        left, stopped = changes.left.cpu(), changes.stopped.cpu()
        opened = _opened(table, cohort.opening)
        full = [False] * rows.count
        assert cohort.plan is not None
        moving = cohort.moving or cohort.plan.once or cohort.parts.blocks.watches
        if moving or bool((cohort.live & (left == 0)).any()):
            self._advance(cohort, left, stopped == 0)
            full = (~cohort.rows.host.blocks.live.any(dim=1)).tolist()
        changed = read_changes(view.pos, view.ids, view.c, changes.op)
        return StepReport(changed, stopped.tolist(), opened, full)

    def _advance(self, cohort: Cohort, left: Tensor, live: Tensor) -> None:
        """Close and open blocks on the host's table; where one has moved, mirror it and drop the
        plan.
        """
        rows, parts, plan = cohort.rows, cohort.parts, cohort.plan
        host, knob = _stored(rows.host), cohort.host_knob(parts.blocks)
        progress = Progress(
            left=left,
            reach=parts.blocks.reach(replace(rows, host=host), knob),
            length=host.length,
            prompt=host.prompt,
            live=live,
            stores=parts.cache.stores,
        )
        table = parts.blocks.advance(host.blocks, progress, knob)
        if plan is None or plan.once or not table.same_bounds(rows.host.blocks):
            cohort.rows = replace(rows, host=host).with_blocks(table)
            cohort.plan = cohort.window = None


def _forced(view: StepView, commit: Tensor) -> Tensor:
    """`[R, W]`: the most confident position of each block that must progress and commits nothing;
    the leftmost of equals.
    """
    idle = view.force & (_per_block(commit & view.force, view.block).gather(1, view.block) == 0)
    c = view.c.nan_to_num(0.0)
    best = _block_extreme(c.masked_fill(~idle, -1.0), view.block, "amax")
    idle = idle & (c == best)
    first = _block_extreme(view.pos.masked_fill(~idle, _FAR), view.block, "amin")
    return idle & (view.pos == first)


_FAR = torch.iinfo(torch.long).max


def _block_extreme(values: Tensor, block: Tensor, reduce: str) -> Tensor:
    """The largest or smallest of `values [R, W]` in the block of each position, `[R, W]`."""
    extreme = values.new_zeros(values.shape[0], BLOCK_COLUMNS)
    extreme = extreme.scatter_reduce(1, block, values, reduce, include_self=False)
    return extreme.gather(1, block)


def _per_block(mask: Tensor, block: Tensor) -> Tensor:
    """Count a mask `[R, W]` block by block: `[R, 8]`."""
    counts = torch.zeros(mask.shape[0], BLOCK_COLUMNS, dtype=torch.long, device=mask.device)
    return counts.scatter_add_(1, block, mask.long())


def _opened(table: BlockTable, opening: bool) -> list[tuple[int, int] | None]:
    """Bounds of the block that each row has opened in this step, if it was opening at all."""
    bounds: list[tuple[int, int] | None] = [None] * table.phase.shape[0]
    if not opening:
        return bounds
    for row, column in (table.phase == Phase.OPENING).nonzero().tolist():
        bounds[row] = int(table.start[row, column]), int(table.end[row, column])
    return bounds


def _stored(host: HostRows) -> HostRows:
    """After a forward: clean blocks that were planned have their final keys, and so has all
    before a live block.
    """
    table = host.blocks
    first = torch.where(table.live, table.start, _FAR).amin(dim=1)
    clean = table.phase == Phase.CLEAN
    return replace(
        host,
        stored=torch.where(table.live.any(dim=1), first, host.stored),
        blocks=replace(table, phase=torch.where(clean, int(Phase.STORED), table.phase)),
    )
