"""Unmasking by confidence and place: what stands near a sure token may be less sure itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlm.core import Kind, Proposal, StepView, Unmasker
from dlm.errors import InvalidRequest
from dlm.unmasking.scores import require_ordered

FAR = 1 << 40
"""More than any distance on a canvas."""


@dataclass(frozen=True, slots=True)
class Leap(Unmasker):
    """Commit what is confident, and near what is very confident with a relaxed threshold
    (LocalLeap, arXiv 2510.07081).

    An anchor is an open position with confidence >= `threshold`; within `radius` positions of one,
    `relaxed` is enough. `committed`: tokens of the block that were committed with such a confidence
    are anchors as well. `decay`: the threshold rises with the distance, from `relaxed` beside the
    anchor to `threshold` just outside the radius. `chain`: what was admitted admits its neighbours
    in turn.
    """

    tier = "T2"

    threshold: float = 0.9
    relaxed: float = 0.75
    radius: int = 4
    committed: bool = False
    decay: bool = False
    chain: bool = False

    def __post_init__(self) -> None:
        require_ordered("relaxed", self.relaxed, "threshold", self.threshold)
        if self.radius < 0:
            raise InvalidRequest("unmask", f"`radius` must be at least 0, got {self.radius}")
        if self.chain and self.decay:
            raise InvalidRequest(
                "unmask", "`chain` and `decay` exclude each other: a chain has no distance"
            )

    def propose(self, view: StepView) -> Proposal:
        """Anchors and their neighbours; the iteration manager adds the best one where none is."""
        params = view.params
        anchor = view.eligible & (view.confidence >= params.threshold)
        if self.committed:
            sure = (view.kind == Kind.COMMITTED) & (view.last.conf >= params.threshold)
            anchor = anchor | sure
        if self.chain:
            willing = anchor | (view.eligible & (view.confidence >= params.relaxed))
            return Proposal(view.eligible & linked(view.pos, willing, anchor, params.radius))
        gap = distance(view.pos, anchor)
        bar = params.relaxed.expand(gap.shape)
        if self.decay:
            share = (gap - 1).clamp_min(0).double() / params.radius.clamp_min(1)
            bar = params.relaxed + (params.threshold - params.relaxed) * share
        bar = torch.where(gap <= params.radius, bar, params.threshold)
        return Proposal(view.eligible & (view.confidence >= bar))


def distance(pos: Tensor, among: Tensor) -> Tensor:
    """`[R, W]`: how far the nearest of `among` is from each of the ascending positions `pos`."""
    before = torch.where(among, pos, -FAR).cummax(dim=1).values
    after = torch.where(among, pos, FAR).flip(1).cummin(dim=1).values.flip(1)
    return torch.minimum(pos - before, after - pos)


def linked(pos: Tensor, willing: Tensor, anchor: Tensor, radius: Tensor) -> Tensor:
    """`[R, W]`: the `willing` positions that a chain of willing ones joins to an anchor, no step of
    it longer than `radius [R, 1]`.
    """
    before = torch.where(willing, pos, -FAR).cummax(dim=1).values
    previous = torch.cat((torch.full_like(pos[:, :1], -FAR), before[:, :-1]), dim=1)
    chain = (willing & (pos - previous > radius)).cumsum(dim=1)  # number of each chain
    anchored = torch.zeros(len(pos), pos.shape[1] + 1, dtype=torch.bool, device=pos.device)
    anchored = anchored.scatter_reduce(1, chain, anchor & willing, "amax")
    return willing & anchored.gather(1, chain)


@dataclass(frozen=True, slots=True)
class Hierarchical(Unmasker):
    """Commit what is confident, and the best position of every run of masks: divide and conquer
    (dInfer, arXiv 2510.08666).

    A run is a stretch of neighbouring eligible positions. Its most confident one is committed above
    `low`, any position above `threshold`. Halving the runs takes the logarithm of the steps and
    keeps what is committed together far apart.
    """

    tier = "T2"

    threshold: float = 0.92
    low: float = 0.62

    def __post_init__(self) -> None:
        require_ordered("low", self.low, "threshold", self.threshold)

    def propose(self, view: StepView) -> Proposal:
        """The confident and the best of the runs; the leftmost of equals."""
        best = best_of_runs(view.confidence, view.pos, view.eligible)
        sure = view.confidence > view.params.threshold
        return Proposal(view.eligible & (sure | (best & (view.confidence > view.params.low))))


def best_of_runs(score: Tensor, pos: Tensor, among: Tensor) -> Tensor:
    """`[R, W]`: the best-scored position of each run of neighbours `among`, the leftmost of equals.

    `pos` ascends.
    """
    follows = (pos[:, 1:] == pos[:, :-1] + 1) & among[:, :-1]
    starts = among & ~torch.cat((torch.zeros_like(among[:, :1]), follows), dim=1)
    run = starts.cumsum(dim=1)
    size = (len(pos), pos.shape[1] + 1)
    score = score.masked_fill(~among, -torch.inf)
    highest = score.new_full(size, -torch.inf).scatter_reduce(1, run, score, "amax")
    is_best = among & (score == highest.gather(1, run))
    places = torch.where(is_best, pos, FAR)
    first = pos.new_full(size, FAR).scatter_reduce(1, run, places, "amin")
    return is_best & (pos == first.gather(1, run))
