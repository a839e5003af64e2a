"""Warm starts: tokens of an earlier answer that no longer fit are opened again."""

from __future__ import annotations

from dataclasses import dataclass

from dlm.core import Editor, Kind, Proposal, StepView, Unmasker
from dlm.errors import InvalidRequest
from dlm.unmasking.edit.revising import refuse_schedule


@dataclass(frozen=True, slots=True)
class Reconsider(Editor):
    """Open the tokens that stood on the canvas from the start and whose probability, seen by the
    model among all others, is below `threshold`; each is opened once at most.

    The rule of requests that `start` from an earlier answer: the first step of a block reads the
    answer under the new prompt and reopens what has become doubtful, and later steps reopen what
    new tokens contradict. Remasking rather than overwriting, since a model tends to repeat a wrong
    token that it sees (as T2M remasking, arXiv 2604.18738, does while a block is open).
    """

    threshold: float = 0.5

    tier = "T3"
    scope = "block"

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise InvalidRequest("edit", f"`threshold` must be in [0, 1], got {self.threshold}")

    @property
    def needs(self) -> frozenset[str]:
        """The probability of the tokens that are there."""
        return frozenset({"prob_current"})

    def refuses(self, unmask: Unmasker) -> str | None:
        """A schedule has not counted the positions that are reopened."""
        return refuse_schedule(unmask)

    def edit(self, view: StepView, proposal: Proposal) -> Proposal:
        """Reopen the doubtful tokens that no step of the row has committed."""
        given = (view.kind == Kind.COMMITTED) & view.scored & (view.last.born < 0)
        assert view.stats.prob_current is not None
        doubtful = given & (view.stats.prob_current < view.params.threshold)
        return proposal.revised(remask=doubtful)
