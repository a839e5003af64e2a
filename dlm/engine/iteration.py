"""The iteration manager: the only loop. It owns progress, pins, and what a step may change.

Rules only answer; whatever touches the rows happens here, in one place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor

from dlm.core import (
    AuxView,
    ForwardPlan,
    Frame,
    Model,
    ModelInfo,
    Phase,
    Proposal,
    StepView,
)
from dlm.engine.answers import (
    checked_ends,
    checked_logits,
    checked_narrowing,
    checked_proposal,
    checked_stop,
)
from dlm.engine.apply import Op, Outcome, resolve
from dlm.engine.auxiliary import Auxiliary
from dlm.engine.blockwise import forced, per_block
from dlm.engine.cohort import Cohort
from dlm.engine.keeping import kept
from dlm.engine.memory import Memory
from dlm.engine.planning import Planner
from dlm.engine.prefixes import PrefixStore
from dlm.engine.sync import Changes, StepReport, advance, catch_up, no_changes
from dlm.engine.viewing import frame_of, view_of
from dlm.errors import blaming
from dlm.model.kv_store import KVPool


class IterationManager:
    """Runs steps over cohorts of rows.

    `unroll`: how many steps may run on the device before the host looks; where a block may open,
    move or be replanned, it looks after each step. Results do not depend on it. `aux`: auxiliary
    models by name. `prefix_bytes`: how much of finished prompts is kept for others (0: nothing).
    """

    def __init__(
        self,
        model: Model,
        kv: KVPool,
        info: ModelInfo,
        device: torch.device,
        unroll: int = 1,
        aux: Mapping[str, Auxiliary] = MappingProxyType({}),
        prefix_bytes: int = 0,
    ) -> None:
        self.model, self.kv, self.info, self.device = model, kv, info, device
        self.process, self.unroll, self.aux = info.process, unroll, aux
        self.planner = Planner(kv, info, device)
        prefixes = PrefixStore(kv.pages, prefix_bytes) if prefix_bytes else None
        helpers = {name: helper.kv.pages for name, helper in aux.items()}
        self.memory = Memory(kv.pages, helpers, prefixes)

    def run(self, cohorts: Sequence[Cohort]) -> list[list[StepReport]]:
        """Run steps up to the next sync; for each cohort, what happened in each of them.

        What the forward raises (out of memory, say) leaves the rows as they were.
        """
        plans = [self.planner.plan(cohort) for cohort in cohorts]
        rounds: list[list[Changes]] = []
        for _ in range(self._unroll(cohorts)):
            try:
                rounds.append(self.step(cohorts, plans))
            except Exception:
                if not rounds:
                    raise
                break  # tell what has been done; the next step meets it again
            if any(cohort.error for cohort in cohorts):
                break
        return [catch_up(c, own, self.device) for c, *own in zip(cohorts, *rounds, strict=True)]

    def _unroll(self, cohorts: Sequence[Cohort]) -> int:
        """How many steps may run before the host has to look."""
        if any(cohort.restless for cohort in cohorts):
            return 1
        return min(self.unroll, *(c.steps_left or self.unroll for c in cohorts))

    def step(self, cohorts: Sequence[Cohort], plans: Sequence[ForwardPlan]) -> list[Changes]:
        """One forward over all cohorts and the decisions taken on it.

        All of it runs on the device; only the opening of a block and auxiliary models ask the host.
        """
        changes = []
        for cohort, logits in zip(cohorts, self._forward(cohorts, plans), strict=True):
            frame, before = frame_of(cohort), cohort.rows
            cohort.aux_tokens = {}
            try:
                guided = self._guide(cohort, logits, frame)
                view = self._view(cohort, guided, frame)
                view = self._consult(cohort, view)
                view = self._open(cohort, view)
                proposal = self._propose(cohort, view)
                proposal = self._edit(cohort, view, proposal)
                view, outcome = self._apply(cohort, view, proposal)
            except Exception as error:  # of a user's part: nothing was applied yet
                cohort.undo(before, error)
                changes.append(no_changes(cohort, frame))
            else:
                changes.append(self._stop(cohort, view, outcome, proposal.hold))
        return changes

    def admit(self, cohort: Cohort) -> None:
        """Open the first block of a new row. Raises what its block scheduler raises."""
        rows = cohort.rows
        left = torch.zeros_like(rows.host.blocks.start)
        (error,) = advance(cohort, left, torch.ones(rows.count, dtype=torch.bool))
        if error is not None:
            raise error

    def _forward(self, cohorts: Sequence[Cohort], plans: Sequence[ForwardPlan]) -> Sequence[Tensor]:
        """One model call: logits `[arms, N, V]` of each cohort.

        Records the ids that the new keys were made from, once they are there.
        """
        packed = self.planner.pack(cohorts, plans)
        logits = self.model(packed, self.kv.store).split(packed.sizes)
        for cohort in cohorts:
            rows, written = cohort.rows, cohort.current.window.written
            rows.kv_ids.view(-1).index_copy_(0, written, rows.ids.view(-1).index_select(0, written))
        return [
            part.unflatten(0, (plan.arms, -1)) for part, plan in zip(logits, plans, strict=True)
        ]

    def _guide(self, cohort: Cohort, logits: Tensor, frame: Frame) -> Tensor:
        """The guides in order; what is left is one arm, `[N, V]`."""
        for guide, knob in cohort.with_knobs["guide"]:
            with blaming("guide", guide):
                logits = checked_logits(guide, guide(logits, frame, knob), logits)
        return logits[0]

    def _view(self, cohort: Cohort, logits: Tensor, frame: Frame) -> StepView:
        """Draw a token for every scored position and read the statistics that the parts need."""
        return view_of(cohort, logits, frame, self.info.mask_id)

    def _consult(self, cohort: Cohort, view: StepView) -> StepView:
        """Let the auxiliary models that the parts ask for read what was drawn."""
        said: dict[str, AuxView] = {}
        for line, name in enumerate(cohort.parts.aux, start=cohort.parts.arms):
            said[name] = self.aux[name].read(cohort, view, line)
        return view._replace(aux=said) if said else view

    def _open(self, cohort: Cohort, view: StepView) -> StepView:
        """Where a block opens, read its end from the logits and count its masks.

        `eligible` and `force` of the view are narrowed to the block.
        """
        if not cohort.current.opening:
            return view
        scheduler = cohort.parts.blocks
        with blaming("blocks", scheduler):
            end = scheduler.close_at(view._replace(knob=cohort.knob("blocks")))
        end = checked_ends(scheduler, end, view)
        table, opens = view.blocks, view.blocks.phase == Phase.OPENING
        table = replace(table, end=torch.where(opens, end[:, None], table.end))
        inside = view._replace(blocks=table).open_inside
        masks = torch.where(opens, per_block(inside, view.block), table.masks)
        cohort.rows = cohort.rows.with_opened(table.end, masks)
        return view._replace(
            blocks=cohort.rows.blocks, eligible=view.eligible & inside, force=view.force & inside
        )

    def _propose(self, cohort: Cohort, view: StepView) -> Proposal:
        """What the unmasker commits among the eligible positions.

        Unless the unmasker follows a schedule (`clock`), a block that must progress commits at
        least its best position.
        """
        rule, scheduler = cohort.parts.unmask, cohort.narrowing
        if scheduler is not None:
            with blaming("blocks", scheduler):
                now = scheduler.narrow(view._replace(knob=cohort.knob("blocks")))
            now = checked_narrowing(scheduler, now, view)
            view = view._replace(eligible=view.eligible & now, force=view.force & now)
        with blaming("unmask", rule):
            proposal = rule.propose(view._replace(knob=cohort.knob("unmask")))
        proposal = checked_proposal("unmask", rule, "propose", view, proposal)
        commit = proposal.commit & view.eligible
        if not cohort.parts.clock:
            commit = commit | forced(view, commit)
        return proposal._replace(commit=commit)

    def _edit(self, cohort: Cohort, view: StepView, proposal: Proposal) -> Proposal:
        """What the editors make of it; rows that have ended idle and are not touched."""
        for editor, knob in cohort.with_knobs["edit"]:
            with blaming("edit", editor):
                proposal = editor.edit(view._replace(knob=knob), proposal)
            proposal = checked_proposal("edit", editor, "edit", view, proposal)
        return proposal.of_rows(cohort.active) if cohort.parts.edit else proposal

    def _apply(
        self, cohort: Cohort, view: StepView, proposal: Proposal
    ) -> tuple[StepView, Outcome]:
        """Write the outcome of the proposal into the rows; the view then shows it."""
        if proposal.token is not None:
            view = view.with_token(proposal.token)
        keep = kept(cohort, proposal.scratch)
        outcome = resolve(view, proposal, self.process, self.info.mask_id)
        _write(cohort, view, outcome)
        keep()
        return view._replace(ids=outcome.ids, kind=outcome.kind), outcome

    def _stop(
        self, cohort: Cohort, view: StepView, outcome: Outcome, hold: Tensor | None
    ) -> Changes:
        """Ask the stop rules and advance the clocks.

        Rows that have ended, or have nothing open, idle until the host looks; a row whose block an
        editor holds goes on.
        """
        rows, active = cohort.rows, cohort.active
        stopped = torch.zeros_like(rows.step)
        try:
            for number, (rule, knob) in enumerate(cohort.with_knobs["stop"], start=1):
                with blaming("stop", rule):
                    stop = rule(rows, view._replace(knob=knob))
                stop = checked_stop(rule, stop, view)
                kept(cohort, stop.scratch)()
                if stop.fill is not None:
                    view, outcome = self._fill(cohort, view, outcome, stop.fill)
                done = stop.done if hold is None else stop.done & ~hold
                stopped = torch.where(done & (stopped == 0), number, stopped)
        except Exception as error:  # of a user's rule: what was applied stays
            cohort.error = error
        left = per_block(view.open_inside & active[:, None], view.block)
        if hold is not None:
            left = left + (cohort.current.window.live & hold[:, None])
        rows.step.add_(active)
        rows.blocks.step.add_(cohort.current.window.live & active[:, None])
        cohort.active = active & (stopped == 0) & (left > 0).any(dim=1)
        return Changes(
            view.pos, view.ids, view.c, outcome.op, left, stopped, active, cohort.aux_tokens
        )

    def _fill(
        self, cohort: Cohort, view: StepView, outcome: Outcome, rows: Tensor
    ) -> tuple[StepView, Outcome]:
        """Commit the tokens of what is still eligible in `rows [R]`."""
        kept = cohort.rows
        view = view._replace(
            conf_prev=kept.conf.gather(1, view.pos), born=kept.born.gather(1, view.pos)
        )
        commit = view.eligible & (rows & cohort.active)[:, None]
        filled = resolve(view, Proposal(commit), self.process, self.info.mask_id)
        _write(cohort, view, filled)
        op = torch.where(filled.op == Op.NONE, outcome.op, filled.op)
        return view._replace(ids=filled.ids, kind=filled.kind), filled._replace(op=op)


def _write(cohort: Cohort, view: StepView, outcome: Outcome) -> None:
    """Write an outcome into the rows: ids, kinds, and the notes of the last commit."""
    rows, pos, written = cohort.rows, view.pos, outcome.written
    rows.ids.scatter_(1, pos, outcome.ids)
    rows.kind.scatter_(1, pos, outcome.kind)
    rows.conf.scatter_(1, pos, torch.where(written, view.c, view.conf_prev))
    rows.born.scatter_(1, pos, torch.where(written, rows.step[:, None], view.born))
    if cohort.parts.edit:
        rows.edits.scatter_add_(1, pos, (outcome.op >= Op.REMASK).to(rows.edits.dtype))
