"""The iteration manager: the only loop. It owns progress, pins, and the changes of a step.

Parts only propose. The rows are written by these verbs and by nothing else: plan (pages that become
a row's own), forward (`kv_ids`), consult (those of auxiliary models), open (the bounds of a block
that opens), apply (canvas and scratch), stop (clocks, and scratch of stop rules), sync (block
tables and `key_step`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from dlm.core import (
    AuxView,
    BlockScheduler,
    Frame,
    Model,
    ModelInfo,
    Phase,
    Proposal,
    StepView,
)
from dlm.core.contracts import (
    checked_ends,
    checked_logits,
    checked_proposal,
    checked_restriction,
    checked_stop,
)
from dlm.decode.apply import (
    CanvasUpdate,
    Op,
    check_scratch,
    count_per_block,
    forced_commits,
    resolve,
    with_progress,
    write_scratch,
    write_update,
)
from dlm.decode.auxiliary import Auxiliary
from dlm.decode.group import RowGroup
from dlm.decode.pages import PageManager, PrefixCache
from dlm.decode.planning import Planner
from dlm.decode.sync import RowStep, StepOutput, advance, no_output, sync
from dlm.decode.view import build_frame, build_view
from dlm.errors import blaming
from dlm.model.kv_store import KVPool


class IterationManager:
    """Run steps over groups of rows.

    unroll: steps between two host synchronisations; where a block may open, move or be replanned,
        the host synchronises after every step. Results do not depend on it.
    aux: auxiliary models by name
    prefix_bytes: bytes of finished prompts that are kept for later requests (0: none)
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
        prefixes = PrefixCache(kv.pages, prefix_bytes) if prefix_bytes else None
        self.page_manager = PageManager(
            kv.pages, {name: helper.kv.pages for name, helper in aux.items()}, prefixes
        )

    def run(
        self, groups: Sequence[RowGroup], *, watched: bool = False
    ) -> list[list[list[RowStep]]]:
        """Run steps up to the next sync; return the records of each row, group by group.

        watched: somebody looks at a row after each step.

        What the forward raises (out of memory, say) leaves the rows as they were.
        """
        for group in groups:
            group.active = group.everyone
            if group.planned is None:
                self.planner.plan(group)
        rounds: list[list[StepOutput[Tensor]]] = []
        for _ in range(1 if watched else self._steps_until_sync(groups)):
            if rounds:
                self._leave_out(groups, rounds[-1])
            try:
                rounds.append(self.step(groups))
            except Exception:
                if not rounds:
                    raise
                break  # report what has been done; the next step meets it again
            if any(group.error for group in groups):
                break
        return sync(groups, rounds)

    def _steps_until_sync(self, groups: Sequence[RowGroup]) -> int:
        """The number of steps until the next sync."""
        if self.unroll == 1 or any(group.current.syncs_every_step for group in groups):
            return 1
        return min(self.unroll, *(c.steps_left or self.unroll for c in groups))

    def _leave_out(self, groups: Sequence[RowGroup], outputs: Sequence[StepOutput[Tensor]]) -> None:
        """Let rows that have ended, or have nothing open, idle until the host looks; a row whose
        block an editor holds goes on.
        """
        for group, output in zip(groups, outputs, strict=True):
            ongoing = (output.stopped == 0) & (output.open_count > 0).any(dim=1)
            group.active = output.active & ongoing

    def step(self, groups: Sequence[RowGroup]) -> list[StepOutput[Tensor]]:
        """One forward over all groups and the decisions taken on it.

        All of it runs on the device; only the opening of a block and auxiliary models ask the host.
        """
        changes = []
        for group, logits in zip(groups, self._forward(groups), strict=True):
            planned, before = group.current, group.rows
            frame, group.aux_tokens = build_frame(before, planned), {}
            try:
                guided = self._guide(group, logits, frame) if group.parts.guide else logits
                view = build_view(group, guided, frame, self.info.mask_id)
                group.drawn = view.scored, view.pos, view.token, view.confidence
                if group.shared.aux:
                    view = self._consult(group, view)
                if planned.opening:
                    view = self._open(group, view)
                scheduler = group.shared.eligibility_filter
                offered = self._restrict(group, view, scheduler) if scheduler else view
                proposal = self._propose(group, offered)
                if group.parts.edit:
                    proposal = self._edit(group, view, proposal)
                proposal = with_progress(group, offered, proposal, self.info.mask_id)
                view, update = self._apply(group, view, proposal)
            except Exception as error:  # of a user's part: nothing was applied yet
                group.undo(before, error)
                changes.append(no_output(group, frame))
            else:
                changes.append(self._stop(group, view, update, proposal.hold))
        return changes

    def admit(self, group: RowGroup) -> None:
        """Open the first block of a new row. Raises what its block scheduler raises."""
        rows = group.rows
        open_count = torch.zeros_like(rows.host.blocks.start)
        (error,) = advance(group, open_count, torch.ones(rows.count, dtype=torch.bool))
        if error is not None:
            raise error

    def _forward(self, groups: Sequence[RowGroup]) -> Sequence[Tensor]:
        """One model call: logits `[arms * N, V]` of each group.

        Records the ids that the new keys were made from, once they are there.
        """
        packed = self.planner.pack(groups)
        logits = self.model(packed, self.kv.store)
        for group in groups:
            rows, written = group.rows, group.current.window.written
            rows.kv_ids.put_(written, rows.ids.take(written))
        return logits.split(packed.sizes) if len(groups) > 1 else (logits,)

    def _guide(self, group: RowGroup, logits: Tensor, frame: Frame) -> Tensor:
        """The guides in order; what is left is one arm, `[N, V]`."""
        logits = logits.unflatten(0, (group.current.plan.arms, -1))
        for guide, params in group.parts_with_params["guide"]:
            with blaming("guide", guide):
                logits = checked_logits(guide, guide(logits, frame, params), logits)
        return logits[0]

    def _consult(self, group: RowGroup, view: StepView) -> StepView:
        """Let the auxiliary models that the parts ask for read what was drawn."""
        said: dict[str, AuxView] = {}
        for line, name in enumerate(group.shared.aux, start=group.shared.arms):
            said[name] = self.aux[name].read(group, view, line)
        return view._replace(aux=said)

    def _open(self, group: RowGroup, view: StepView) -> StepView:
        """Read the end of a block that opens from the logits, and count its masks.

        `eligible` and `must_progress` of the view are narrowed to the block.
        """
        scheduler = group.parts.blocks
        with blaming("blocks", scheduler):
            end = scheduler.block_end(view._replace(params=group.params("blocks")))
        end = checked_ends(scheduler, end, view)
        table, opens, window = view.blocks, view.blocks.phase == Phase.OPENING, view.window
        ends = torch.where(opens, end[:, None], table.end)
        inside = window.valid & (window.pos < ends.gather(1, window.block))
        view = view._replace(window=window._replace(inside=inside))
        masks = torch.where(opens, count_per_block(view.open_inside, window.block), table.masks)
        group.rows = group.rows.with_opened(ends, masks)
        return view._replace(
            blocks=group.rows.blocks,
            eligible=view.eligible & inside,
            must_progress=view.must_progress & inside,
        )

    def _restrict(self, group: RowGroup, view: StepView, scheduler: BlockScheduler) -> StepView:
        """Narrow `eligible` and `must_progress` to what the block scheduler offers."""
        with blaming("blocks", scheduler):
            now = scheduler.restrict(view._replace(params=group.params("blocks")))
        now = checked_restriction(scheduler, now, view)
        return view._replace(eligible=view.eligible & now, must_progress=view.must_progress & now)

    def _propose(self, group: RowGroup, view: StepView) -> Proposal:
        """Ask the unmasker for commits among the eligible positions.

        Unless the unmasker follows a schedule (`clock`), a block that must progress commits at
        least its best position.
        """
        rule = group.parts.unmask
        with blaming("unmask", rule):
            proposal = rule.propose(view._replace(params=group.params("unmask")))
        proposal = checked_proposal("unmask", rule, "propose", view, proposal)
        commit = proposal.commit & view.eligible
        if not group.shared.clock:
            commit = commit | forced_commits(view, commit)
        return proposal._replace(commit=commit)

    def _edit(self, group: RowGroup, view: StepView, proposal: Proposal) -> Proposal:
        """Let the editors revise the proposal; rows that have ended idle and are not touched."""
        for editor, params in group.parts_with_params["edit"]:
            with blaming("edit", editor):
                proposal = editor.edit(view._replace(params=params), proposal)
            proposal = checked_proposal("edit", editor, "edit", view, proposal)
        return proposal if group.active is group.everyone else proposal.of_rows(group.active)

    def _apply(
        self, group: RowGroup, view: StepView, proposal: Proposal
    ) -> tuple[StepView, CanvasUpdate]:
        """Write the outcome of the proposal into the rows; the view then shows it."""
        if proposal.token is not None:
            view = view.with_token(proposal.token)
        writes = check_scratch(group, proposal.scratch) if proposal.scratch else ()
        update = resolve(view, proposal, self.process, self.info.mask_id)
        write_update(group, view, update)
        write_scratch(writes)
        return view._replace(ids=update.ids, kind=update.kind), update

    def _stop(
        self, group: RowGroup, view: StepView, update: CanvasUpdate, hold: Tensor | None
    ) -> StepOutput[Tensor]:
        """Ask the stop rules, count what is open, and advance the clocks."""
        rows, active, live = group.rows, group.active, view.window.live
        stopped = group.unstopped
        try:
            for number, (rule, params) in enumerate(group.parts_with_params["stop"], start=1):
                with blaming("stop", rule):
                    stop = rule(rows, view._replace(params=params))
                stop = checked_stop(rule, stop, view)
                write_scratch(check_scratch(group, stop.scratch or {}))
                if stop.fill is not None:
                    view, update = self._fill(group, view, update, stop.fill)
                done = stop.done if hold is None else stop.done & ~hold
                stopped = torch.where(done & (stopped == 0), number, stopped)
        except Exception as error:  # of a user's rule: what was applied stays
            group.error = error
        open_inside, stepped = view.open_inside, live
        if active is not group.everyone:
            open_inside, stepped = open_inside & active[:, None], live & active[:, None]
        if view.window.one_block:
            open_count = live * open_inside.sum(dim=1, keepdim=True)
        else:
            open_count = count_per_block(open_inside, view.window.block)
        if hold is not None:
            open_count = open_count + (live & hold[:, None])
        rows.step.add_(active)
        rows.blocks.step.add_(stepped)
        return StepOutput(
            update.op,
            view.window.pos,
            view.ids,
            view.confidence,
            open_count,
            stopped,
            active,
            group.aux_tokens,
        )

    def _fill(
        self, group: RowGroup, view: StepView, update: CanvasUpdate, rows: Tensor
    ) -> tuple[StepView, CanvasUpdate]:
        """Commit the tokens of what is still eligible in `rows [R]`."""
        commit = view.eligible & (rows & group.active)[:, None]
        filled = resolve(view, Proposal(commit), self.process, self.info.mask_id)
        write_update(group, view, filled)
        op = torch.where(filled.op == Op.NONE, update.op, filled.op)
        return view._replace(ids=filled.ids, kind=filled.kind), filled._replace(op=op)
