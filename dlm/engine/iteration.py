"""The iteration manager: the only loop. It owns progress, pins, and what a step may change.

Rules only answer; whatever touches the rows happens here, in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dlm.core import (
    BLOCK_COLUMNS,
    ForwardPlan,
    Frame,
    Kind,
    Model,
    ModelInfo,
    Phase,
    Proposal,
    StepView,
)
from dlm.engine.apply import Op, Outcome, resolve
from dlm.engine.cohort import Cohort
from dlm.engine.planning import Planner
from dlm.engine.stats import draw_tokens, row_stats, token_uniforms
from dlm.engine.sync import FAR, Changes, StepReport, advance, close, nothing
from dlm.model.kv import KVPool


class IterationManager:
    """Runs steps over cohorts of rows.

    `unroll`: how many steps may run on the device before the host looks; where a block may open,
    move or be replanned, it looks after each step. Results do not depend on it.
    """

    def __init__(
        self, model: Model, kv: KVPool, info: ModelInfo, device: torch.device, unroll: int = 1
    ) -> None:
        self.model, self.kv, self.info, self.device = model, kv, info, device
        self.process, self.unroll = info.process, unroll
        self.planner = Planner(kv, info, device)

    def steps(self, cohorts: Sequence[Cohort]) -> list[list[StepReport]]:
        """Run steps up to the next sync; for each cohort, what happened in each of them."""
        plans = [self.planner.plan(cohort) for cohort in cohorts]
        unroll = 1 if any(cohort.restless for cohort in cohorts) else self.unroll
        rounds = [self.step(cohorts, plans) for _ in range(unroll)]
        return [close(c, own, self.device) for c, *own in zip(cohorts, *rounds, strict=True)]

    def step(self, cohorts: Sequence[Cohort], plans: Sequence[ForwardPlan]) -> list[Changes]:
        """One forward over all cohorts and the decisions taken on it.

        All of it runs on the device; only the opening of a block asks the host.
        """
        changes = []
        for cohort, logits in zip(cohorts, self._forward(cohorts, plans), strict=True):
            frame = self._frame(cohort)
            try:
                guided = self._guide(cohort, logits, frame)
                view = self._view(cohort, guided, frame)
                view = self._open(cohort, view)
                proposal = self._propose(cohort, view)
                proposal = self._edit(cohort, view, proposal)
                view, outcome = self._apply(cohort, view, proposal)
                changes.append(self._stop(cohort, view, outcome))
            except Exception as error:  # a user's part: its rows end, their batch mates go on
                cohort.error = error
                changes.append(nothing(cohort, frame))
        return changes

    def admit(self, cohort: Cohort) -> None:
        """Open the first block of new rows."""
        rows = cohort.rows
        left = torch.zeros_like(rows.host.blocks.start)
        advance(cohort, left, torch.ones(rows.count, dtype=torch.bool))

    def _forward(self, cohorts: Sequence[Cohort], plans: Sequence[ForwardPlan]) -> Sequence[Tensor]:
        """One model call: logits `[arms, N, V]` of each cohort.

        Records the ids that the new keys are made from.
        """
        packed = self.planner.pack(cohorts, plans)
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
        for guide, knob in cohort.with_knobs["guide"]:
            logits = guide(logits, frame, knob)
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
        is_open = (frame.kind >= Kind.MASK) & cohort.active[:, None]
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
            limit=rows.limit,
            seed=rows.seed,
            path=rows.path,
            scratch=rows.scratch,
            knob=None,
        )

    def _open(self, cohort: Cohort, view: StepView) -> StepView:
        """Where a block opens, read its end from the logits and count its masks.

        `eligible` and `force` of the view are narrowed to the block.
        """
        if not cohort.opening:
            return view
        scheduler, table = cohort.parts.blocks, cohort.rows.host.blocks
        end = scheduler.close_at(view._replace(knob=cohort.knob("blocks")))
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
        """What the unmasker commits among the eligible positions.

        Unless the unmasker follows a schedule (`clock`), a block that must progress commits at
        least its best position.
        """
        rule = cohort.parts.unmask
        proposal = rule.propose(view._replace(knob=cohort.knob("unmask")))
        commit = proposal.commit & view.eligible
        if not cohort.parts.clock:
            commit = commit | _forced(view, commit)
        return proposal._replace(commit=commit)

    def _edit(self, cohort: Cohort, view: StepView, proposal: Proposal) -> Proposal:
        for editor, knob in cohort.with_knobs["edit"]:
            proposal = editor.edit(view._replace(knob=knob), proposal)
        return proposal

    def _apply(
        self, cohort: Cohort, view: StepView, proposal: Proposal
    ) -> tuple[StepView, Outcome]:
        """Write the outcome of the proposal into the rows; the view then shows it."""
        rows, pos = cohort.rows, view.pos
        if proposal.token is not None:
            view = view.with_token(proposal.token)
        outcome = resolve(view, proposal, self.process, self.info.mask_id)
        ids, kind, op, written = outcome
        rows.ids.scatter_(1, pos, ids)
        rows.kind.scatter_(1, pos, kind)
        rows.conf.scatter_(1, pos, torch.where(written, view.c, view.conf_prev))
        rows.born.scatter_(1, pos, torch.where(written, rows.step[:, None], view.born))
        if cohort.parts.edit:
            rows.edits.scatter_add_(1, pos, (op >= Op.REMASK).to(rows.edits.dtype))
        for name, value in (proposal.scratch or {}).items():
            rows.scratch[name].copy_(value)
        return view._replace(ids=ids, kind=kind), outcome

    def _stop(self, cohort: Cohort, view: StepView, outcome: Outcome) -> Changes:
        """Ask the stop rules and advance the clocks.

        Rows that have ended, or have nothing open, idle until the host looks.
        """
        rows, active = cohort.rows, cohort.active
        stopped = torch.zeros_like(rows.step)
        for number, (rule, knob) in enumerate(cohort.with_knobs["stop"], start=1):
            done = rule(rows, view._replace(knob=knob)).done
            stopped = torch.where(done & (stopped == 0), number, stopped)
        still_open = (view.eligible & (view.kind >= Kind.MASK)) | (outcome.op == Op.REMASK)
        left = _per_block(still_open, view.block)
        rows.step.add_(active)
        rows.blocks.step.add_(cohort.shown.live & active[:, None])
        cohort.active = active & (stopped == 0) & (left > 0).any(dim=1)
        return Changes(view.pos, view.ids, view.c, outcome.op, left, stopped, active)


def _forced(view: StepView, commit: Tensor) -> Tensor:
    """`[R, W]`: the best position of each block that must progress and commits nothing.

    The best position is the most confident one; of equals, the leftmost.
    """
    idle = view.force & (_per_block(commit & view.force, view.block).gather(1, view.block) == 0)
    c = view.c.nan_to_num(0.0)
    best = _block_extreme(c.masked_fill(~idle, -1.0), view.block, "amax")
    idle = idle & (c == best)
    first = _block_extreme(view.pos.masked_fill(~idle, FAR), view.block, "amin")
    return idle & (view.pos == first)


def _block_extreme(values: Tensor, block: Tensor, reduce: str) -> Tensor:
    """The largest or smallest of `values [R, W]` in the block of each position, `[R, W]`."""
    extreme = values.new_zeros(values.shape[0], BLOCK_COLUMNS)
    extreme = extreme.scatter_reduce(1, block, values, reduce, include_self=False)
    return extreme.gather(1, block)


def _per_block(mask: Tensor, block: Tensor) -> Tensor:
    """Count a mask `[R, W]` block by block: `[R, 8]`."""
    counts = torch.zeros(mask.shape[0], BLOCK_COLUMNS, dtype=torch.long, device=mask.device)
    return counts.scatter_add_(1, block, mask.long())
