"""Uniform diffusion with the entropy-bound rule (arXiv 2505.24857, as in DiffusionGemma).

In each step all positions of the canvas are judged anew: the most certain ones, up to a bound on
the summed entropy, hold their token; all others are drawn at random again. The last step keeps
everything.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlm.core import Editor, Kind, Proposal, StepView, Unmasker


def accepted(view: StepView, bound: Tensor, steps: Tensor) -> Tensor:
    """Positions whose summed entropy, their own left out, stays within the bound."""
    assert view.stats.entropy is not None
    among = view.scored & (view.kind != Kind.PROMPT)
    entropy = view.stats.entropy.masked_fill(~among, torch.inf)
    ordered, order = entropy.sort(dim=1, stable=True)
    finite = ordered.masked_fill(ordered.isinf(), 0.0)
    within = (finite.cumsum(dim=1) - finite <= bound) & ordered.isfinite()
    accept = torch.zeros_like(among).scatter(1, order, within)
    last = view.in_block(view.blocks.step) >= steps - 1
    return among & (accept | last)


@dataclass(frozen=True)
class EntropyBound(Unmasker):
    """Commit what is accepted."""

    bound: float = 0.5
    steps: int = 8

    clock = True
    needs = frozenset({"entropy"})

    def propose(self, view: StepView) -> Proposal:
        return Proposal(view.eligible & accepted(view, view.params.bound, view.params.steps))


@dataclass(frozen=True)
class Renoise(Editor):
    """Draw again what is not accepted; overwrite what is, where its token has changed."""

    bound: float = 0.5
    steps: int = 8

    scope = "row"
    needs = frozenset({"entropy"})

    def edit(self, view: StepView, proposal: Proposal) -> Proposal:
        keep = accepted(view, view.params.bound, view.params.steps)
        settled = (view.kind == Kind.COMMITTED) & view.scored
        return proposal._replace(
            remask=settled & ~keep, replace=settled & keep, renoise=view.eligible & ~keep
        )
