"""The iteration manager: the only loop. It owns progress, pins, and the changes of a step.

Parts only propose. The rows are written by these verbs and by nothing else: plan (pages that become
a row's own), forward (`kv_ids`), guide and consult (those of auxiliary models), open (the bounds of
a block that opens), apply (canvas and scratch), stop (clocks, and scratch of stop rules), sync
(block tables and `key_step`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from dlm.core import AuxView, Frame, Model, ModelInfo, Phase, Proposal, StepView, Stop
from dlm.decode.apply import (
    CanvasUpdate,
    check_scratch,
    count_per_block,
    fill_early,
    forced_commits,
    resolve,
    with_progress,
    write_scratch,
    write_update,
)
from dlm.decode.auxiliary import Auxiliary, AuxiliaryModel
from dlm.decode.group import RowGroup
from dlm.decode.guiding import Noted, guide
from dlm.decode.leaders import hand_out
from dlm.decode.outputs import RowStep, StepOutput, no_output
from dlm.decode.pages import PageManager, PrefixCache
from dlm.decode.planning import Planner
from dlm.decode.sampling import RowStats
from dlm.decode.sync import advance, sync
from dlm.decode.top import read_top
from dlm.decode.verifying import verify
from dlm.decode.view import build_frame, build_view, read_together
from dlm.decode.window import Planned
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
        aux: Mapping[str, AuxiliaryModel] = MappingProxyType({}),
        prefix_bytes: int = 0,
    ) -> None:
        self.model, self.kv, self.info, self.device = model, kv, info, device
        self.process, self.unroll, self.aux = info.process, unroll, aux
        self.planner = Planner(kv, info, device)
        prefixes = PrefixCache(kv.pages, prefix_bytes) if prefix_bytes else None
        self.page_manager = PageManager(
            kv.pages, {name: helper.kv.pages for name, helper in aux.items()}, prefixes
        )

    def run(self, groups: Sequence[RowGroup], most: int | None = None) -> list[list[list[RowStep]]]:
        """Run steps up to the next sync; return the records of each row, group by group.

        most: somebody looks at a row after this many steps (None: nobody waits for one).

        What the forward raises (out of memory, say) leaves the rows as they were.
        """
        plans = [group.planned or self.planner.plan(group) for group in groups]
        for group in groups:
            group.active = group.everyone
        rounds: list[list[StepOutput[Tensor]]] = []
        for _ in range(self._steps_until_sync(groups, most)):
            if rounds and not self._leave_out(groups, rounds[-1]):
                break
            try:
                rounds.append(self.step(groups, plans))
            except Exception:
                if not rounds:
                    raise
                break  # report what has been done; the next step meets it again
        return sync(groups, rounds)

    def _steps_until_sync(self, groups: Sequence[RowGroup], most: int | None) -> int:
        """The number of steps until the next sync, at most this many."""
        if self.unroll == 1 or any(group.current.syncs_every_step for group in groups):
            return 1
        return min(self.unroll, most or self.unroll, *(c.steps_left or self.unroll for c in groups))

    def _leave_out(self, groups: Sequence[RowGroup], outputs: Sequence[StepOutput[Tensor]]) -> bool:
        """Let rows that have ended, or have nothing open, idle until the host looks; a row whose
        block an editor holds goes on. False where a part has failed, so that the host looks now.
        """
        for group, output in zip(groups, outputs, strict=True):
            ongoing = (output.stopped == 0) & (output.open_count > 0).any(dim=1)
            group.active = output.active & ongoing
        return not any(group.error for group in groups)

    def step(
        self, groups: Sequence[RowGroup], plans: Sequence[Planned]
    ) -> list[StepOutput[Tensor]]:
        """One forward over all groups and the decisions taken on it.

        All of it runs on the device; only the opening of a block and auxiliary models ask the host.
        """
        changes = []
        forward = self._forward(groups, plans)
        for group, planned, logits, stats in zip(groups, plans, *forward, strict=True):
            frame, before = build_frame(group.rows, planned), group.rows
            group.aux_tokens = {}
            try:
                guided, noted = self._guide(group, logits, frame)
                view = self._view(group, guided, stats, frame)
                if group.shared.aux:
                    view = self._consult(group, view)
                if planned.opening:
                    view = self._open(group, view)
                if group.shared.asks is not None:
                    view = verify(group, view, self.model, self.kv)
                offered = self._restrict(group, view) if group.shared.restrict else view
                proposal = self._propose(group, offered)
                if group.parts.edit:
                    proposal = self._edit(group, view, proposal)
                proposal = with_progress(group, planned, offered, proposal, self.info.mask_id)
                stopped = group.unstopped
                if group.parts.early:
                    proposal, stopped = fill_early(group, view, proposal, self.info.mask_id)
                view, update = self._apply(group, planned, view, proposal, noted)
            except Exception as error:  # of a user's part: nothing was applied yet
                group.undo(before, error)
                changes.append(no_output(group, frame))
            else:
                changes.append(self._stop(group, view, update, proposal.hold, stopped))
        return changes

    def admit(self, group: RowGroup) -> None:
        """Open the first block of a new row. Raises what its block scheduler raises."""
        rows = group.rows
        open_count = torch.zeros_like(rows.host.blocks.start)
        (error,) = advance(group, open_count, torch.ones(rows.count, dtype=torch.bool))
        if error is not None:
            raise error

    def _forward(
        self, groups: Sequence[RowGroup], plans: Sequence[Planned]
    ) -> tuple[Sequence[Tensor], Sequence[RowStats | None]]:
        """One model call: logits `[arms * N, V]` of each group, and what was read of all at once.

        Records the ids that the new keys were made from, once they are there.
        """
        packed = self.planner.pack(groups, plans)
        logits = self.model(packed, self.kv.store)
        if packed.shared is not None:
            logits = hand_out(packed.shared, logits, self.kv.store)
        for group, planned in zip(groups, plans, strict=True):
            rows, written = group.rows, planned.window.written
            rows.kv_ids.put_(written, rows.ids.take(written))
        if len(groups) == 1:
            return (logits,), (None,)
        stats = read_together(plans, logits, packed.sizes, self.info.mask_id)
        return logits.split(packed.sizes), stats

    def _guide(self, group: RowGroup, logits: Tensor, frame: Frame) -> tuple[Tensor, Noted]:
        """The guides in order: the one arm that is left, `[N, V]`, and what they keep."""
        return guide(group, logits, frame, self.aux) if group.parts.guide else (logits, {})

    def _view(
        self, group: RowGroup, logits: Tensor, stats: RowStats | None, frame: Frame
    ) -> StepView:
        """Draw a token for every scored position and read the statistics that the parts need."""
        view = build_view(group, logits, stats, frame, self.info.mask_id)
        group.drawn = frame.window.scored, frame.window.pos, view.token, view.confidence
        group.top = None
        return view

    def _consult(self, group: RowGroup, view: StepView) -> StepView:
        """Let the causal models that the parts ask for read what was drawn."""
        said: dict[str, AuxView] = {}
        for line, name in enumerate(group.shared.aux, start=group.shared.arms):
            model = self.aux[name]
            if isinstance(model, Auxiliary):
                said[name] = model.read(group, view, line)
        return view._replace(aux=said)

    def _open(self, group: RowGroup, view: StepView) -> StepView:
        """Read the end of a block that opens from the logits, and count its masks.

        `eligible` and `must_progress` of the view are narrowed to the block.
        """
        ((block_end, params),) = group.calls["blocks"]
        end = block_end(view._replace(params=params))
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

    def _restrict(self, group: RowGroup, view: StepView) -> StepView:
        """Narrow `eligible` and `must_progress` to what the block scheduler offers."""
        assert group.shared.restrict is not None, "the block scheduler offers all"
        now = group.shared.restrict(view._replace(params=group.params("blocks")))
        return view._replace(eligible=view.eligible & now, must_progress=view.must_progress & now)

    def _propose(self, group: RowGroup, view: StepView) -> Proposal:
        """Ask the unmasker for commits among the eligible positions.

        Unless the unmasker follows a schedule (`clock`), a block that must progress commits at
        least its best position.
        """
        ((propose, params),) = group.calls["unmask"]
        proposal: Proposal = propose(view._replace(params=params))
        if group.shared.clock:
            return proposal
        commit = proposal.commit | forced_commits(view, proposal.commit)
        return proposal._replace(commit=commit)

    def _edit(self, group: RowGroup, view: StepView, proposal: Proposal) -> Proposal:
        """Let the editors revise the proposal."""
        for edit, params in group.calls["edit"]:
            proposal = edit(view._replace(params=params), proposal)
        return proposal

    def _apply(
        self,
        group: RowGroup,
        planned: Planned,
        view: StepView,
        proposal: Proposal,
        noted: Noted,
    ) -> tuple[StepView, CanvasUpdate]:
        """Write the outcome of the proposal, and what guides have `noted`, into the rows; the view
        then shows it.
        """
        if proposal.branch is not None:
            view = view.seen_from(proposal.branch)
            group.drawn = view.scored, view.pos, view.token, view.confidence
        if proposal.token is not None:
            view = view.with_token(proposal.token)
        scratch = {**noted, **(proposal.scratch or {})}
        writes = check_scratch(group, scratch) if scratch else ()
        update = resolve(view, proposal, self.process)
        write_update(group, planned, view, update)
        if writes:
            write_scratch(writes)
        return view._replace(ids=update.ids, kind=update.kind), update

    def _stop(
        self,
        group: RowGroup,
        view: StepView,
        update: CanvasUpdate,
        hold: Tensor | None,
        stopped: Tensor,
    ) -> StepOutput[Tensor]:
        """Ask the stop rules, count what is open, and advance the clocks.

        stopped: the number of the early commit that ended each row (0: none), `[R]`
        """
        rows, active, live = group.rows, group.active, view.window.live
        first = len(group.parts.early) + 1
        try:
            for number, (rule, params) in enumerate(group.calls["stop"], start=first):
                stop: Stop = rule(rows, view._replace(params=params))
                write_scratch(check_scratch(group, stop.scratch or {}))
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
        group.top = read_top(view, group.numbers.top) if group.numbers.top else None
        return StepOutput(
            update.op,
            view.window.pos,
            view.ids,
            view.confidence,
            view.stats.drawn,
            open_count,
            stopped,
            active,
            group.aux_tokens,
            group.top,
        )
