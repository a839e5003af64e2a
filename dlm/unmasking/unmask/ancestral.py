"""Ancestral sampling of masked diffusion: every position decides for itself when it falls."""

from __future__ import annotations

from dataclasses import dataclass

from dlm.core import Proposal, StepView, Unmasker
from dlm.rng import Stream, uniforms
from dlm.unmasking.schedules import clock_of, eps_share, require_schedule


@dataclass(frozen=True, slots=True)
class Ancestral(Unmasker):
    """Commit each open position by itself with probability `1 - s / t` (MDLM, arXiv 2406.07524,
    eq. 6; Dream's `alg="origin"`).

    Times fall from 1 to `eps` over the steps; the last step takes all that is open. `steps` is for
    the whole answer, shared out to the blocks; None is as many as there are positions. How many
    fall in a step is left to chance, and may be none.
    """

    tier = "T2"

    steps: int | None = None
    eps: float = 1e-3

    clock = True
    one_block = True

    def __post_init__(self) -> None:
        require_schedule("unmask", self.steps, eps=self.eps)

    def propose(self, view: StepView) -> Proposal:
        """The positions whose uniform falls below the step's share."""
        step, steps, _ = clock_of(view, None if self.steps is None else view.params.steps)
        u = uniforms(view.row.seed, view.row.path, view.pos, view.row.step, Stream.ORDER)
        return Proposal(view.eligible & (u < eps_share(step, steps, view.params.eps)))
