"""Drafts of a block that the same model verifies from left to right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self, get_args

import torch
from torch import Tensor

from dlm.core import ModelInfo, Parts, Proposal, StepView, Unmasker
from dlm.errors import InvalidRequest
from dlm.unmasking.scores import require_share

Route = Literal["always", "score", "span"]


@dataclass(frozen=True, slots=True)
class Verified(Unmasker):
    """Commit the draft of the first open positions as far as the model, reading from left to right,
    says the same, and its own token where it first differs (greedy S2D2, arXiv 2603.25702).

    A second forward on the block judges the draft: a MASK sees all before its block and the tokens
    before it. `route`: verify "always", which gives the tokens of decoding with blocks of one
    position, whatever is drafted; by "score", if the number of leading positions whose best token
    is ahead by more than `margin`, less `cost`, is at least `least`; or if the first run of open
    positions is at least `span` long. A step that verifies nothing commits what is more confident
    than `threshold`, the best position at least. Needs temperature 0; `aux_forwards["self"]` counts
    the second forwards, which `nfe` leaves out.
    """

    tier = "T2"

    route: Route = "always"
    threshold: float = 0.9
    margin: float = 0.05
    cost: float = 1.0
    least: float = 0.0
    span: int = 1

    def __post_init__(self) -> None:
        if self.route not in get_args(Route):
            choices = ", ".join(map(repr, get_args(Route)))
            raise InvalidRequest("unmask", f"`route` must be one of {choices}, got {self.route!r}")
        require_share("threshold", self.threshold)
        require_share("margin", self.margin)
        if not self.cost >= 0:
            raise InvalidRequest("unmask", f"`cost` must be at least 0, got {self.cost}")
        if self.least != self.least:
            raise InvalidRequest("unmask", f"`least` must be a number, got {self.least}")
        if self.span < 1:
            raise InvalidRequest("unmask", f"`span` must be at least 1, got {self.span}")

    @property
    def needs(self) -> frozenset[str]:
        """The margin, where the score reads it."""
        return frozenset({"margin"}) if self.route == "score" else frozenset()

    def bind(self, info: ModelInfo) -> Self:
        """Raises `InvalidRequest` on models without blocks, and on those with a shift."""
        if info.attention != "block_causal" or info.shift or info.mask_id is None:
            why = f"has {info.attention} attention"
            if info.attention == "block_causal":
                why = "predicts the position after a query"
            raise InvalidRequest(
                "unmask",
                "'verified' lets a block-causal model read a block from left to right, as it would "
                f"with blocks of one position, and this model ({info.family}) {why}: use "
                "'threshold'",
            )
        return self

    def conflict(self, parts: Parts, temperature: float) -> str | None:
        """The part that would draw, revise or hide the verified tokens."""
        blocks, editors = type(parts.blocks).__name__, [type(e).__name__ for e in parts.edit]
        reasons = {
            f"draws nothing: its drafts are verified at temperature 0, got {temperature:g}": (
                temperature > 0
            ),
            f"judges tokens by those before them, and {', '.join(editors)} revises these: use no "
            "`edit`": bool(editors),
            f"has one verdict, and {type(parts.armed).__name__} asks for further model inputs": (
                parts.arms > 1
            ),
            "reads the block again within a step, and "
            f"{', '.join(type(g).__name__ for g in parts.step_guides)} counts steps or reads "
            "another model in each": bool(parts.step_guides),
            f"drafts in one block that offers all its open positions, and {blocks} does not: use "
            "blocks 'fixed'": parts.blocks.multi_block or parts.blocks.restricts,
        }
        return next((f"'verified' {why}" for why, holds in reasons.items() if holds), None)

    def asks(self, view: StepView) -> Tensor:
        """The rows whose draft is worth a forward."""
        run, params = first_run(view), view.params
        if self.route == "always":
            return run.any(dim=1)
        if self.route == "span":
            long: Tensor = run.sum(dim=1) >= params.span[:, 0]
            return long
        assert view.stats.margin is not None
        doubtful = run & ~(view.stats.margin > params.margin)
        expected = (run & (doubtful.cumsum(dim=1) == 0)).sum(dim=1)
        worth: Tensor = expected - params.cost[:, 0] >= params.least[:, 0]
        return worth & run.any(dim=1)

    def propose(self, view: StepView) -> Proposal:
        """The verified beginning of the draft, or what is sure where nothing was verified."""
        sure = view.eligible & (view.confidence > view.params.threshold)
        if view.branches is None:
            return Proposal(sure)
        run, judged = first_run(view), view.branches.scored[:, 0]
        told = (run & judged).any(dim=1, keepdim=True)
        wrong = run & (view.branches.token[:, 0] != view.token)
        earlier = wrong.cumsum(dim=1) - wrong.long()  # wrong ones before a position
        right = run & (earlier == 0)
        return Proposal(torch.where(told, right, sure), branch=(right & told).long())


def first_run(view: StepView) -> Tensor:
    """`[R, W]`: the eligible positions before the first one that is not, from the first on."""
    begun = view.eligible.cumsum(dim=1) > 0
    return view.eligible & ((begun & ~view.eligible).cumsum(dim=1) == 0)
