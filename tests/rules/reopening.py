"""An editor that takes one position back."""

from __future__ import annotations

from dataclasses import dataclass

from dlm.core import Editor, Kind, Proposal, StepView


@dataclass(frozen=True)
class ReopensFirst(Editor):
    """Reopens the first position of the answer once, after `after` steps of the row."""

    after: int

    scope = "row"

    def edit(self, view: StepView, proposal: Proposal) -> Proposal:
        first = (view.kind == Kind.COMMITTED) & (view.pos == view.row.prompt[:, None])
        return proposal._replace(remask=first & (view.row.step == self.after)[:, None])
