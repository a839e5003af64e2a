"""FreeDave: several steps of one token each, drafted and verified in one forward."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dlm.core import (
    DRAFT,
    Extra,
    ForwardPlan,
    Ints,
    ModelInfo,
    Parts,
    Phase,
    Proposal,
    Rows,
    ScratchSpec,
    Segment,
    StepView,
    Unmasker,
    bound,
)
from dlm.errors import InvalidRequest
from dlm.unmasking.scores import top

MOST: int = 64
"""Bound of `branches`: each one is computed in every forward."""


@dataclass(frozen=True, slots=True)
class FreeDave(Unmasker):
    """Commit the very tokens of `topk`, one a step, in fewer forwards (FreeDave, arXiv 2510.00294).

    Each forward also computes copies of the canvas in which the next 1, 2, ... positions of the
    last logits' order are filled in, and what one copy says decides if the next one is right; so
    up to `branches` tokens are committed, the canvas itself counted as one of the branches. Needs
    temperature 0. `token_forwards` counts the tokens of all branches, `nfe` the forward once.
    """

    tier = "T2"

    branches: int = 4
    copies: tuple[int, ...] = bound(())  # plans are made for rows of equal tuples

    def __post_init__(self) -> None:
        if not 2 <= self.branches <= MOST:
            raise InvalidRequest(
                "unmask", f"`branches` must be between 2 and {MOST}, got {self.branches}"
            )

    @property
    def canvases(self) -> int:
        """All branches."""
        return self.branches

    @property
    def scratch(self) -> tuple[ScratchSpec, ...]:
        """The draft, an order of filling what is open."""
        return DRAFT

    def bind(self, info: ModelInfo) -> Self:
        """Raises `InvalidRequest` on models without a mask, and on those with a shift, whose copies
        would need the position before them.
        """
        if info.mask_id is None or info.shift:
            why = "has no mask" if info.mask_id is None else "predicts the position after a query"
            raise InvalidRequest(
                "unmask",
                f"'freedave' compares copies of the canvas at the positions that they predict, and "
                f"this model ({info.family}) {why}: use 'topk' or 'threshold'",
            )
        return replace(self, copies=(self.branches - 1,))

    def conflict(self, parts: Parts, temperature: float) -> str | None:
        """A part that makes `topk` decide by more than the canvas, or by several tokens."""
        blocks, cache = type(parts.blocks).__name__, type(parts.cache).__name__
        reasons = {
            f"draws nothing: its drafts are verified at temperature 0, got {temperature:g}": (
                temperature > 0
            ),
            f"decides by the canvas alone, and {_names(parts.edit)} revises it in between: use no "
            "`edit`": bool(parts.edit),
            f"commits several tokens a step, and {_names(parts.early)} counts steps of one: use no "
            "early commit": bool(parts.early),
            "reads copies of the canvas, and "
            f"{type(parts.armed).__name__} asks for further model inputs of each": (parts.arms > 1),
            f"takes fewer steps, and {_names(parts.step_guides)} counts steps or reads another "
            "model in each": bool(parts.step_guides),
            f"drafts in one block that offers all its open positions, and {blocks} does not: use "
            "blocks 'fixed', 'whole' or 'adaptive'": (
                parts.blocks.multi_block or parts.blocks.restricts
            ),
            f"takes fewer steps, and what the cache {cache} computes depends on their number: use "
            "cache 'none', 'block_causal', or 'prefix' or 'dual' without `every`": (
                not parts.cache.steady
            ),
        }
        return next((f"'freedave' {why}" for why, holds in reasons.items() if holds), None)

    def extend(self, plan: ForwardPlan, rows: Rows) -> ForwardPlan:
        """Copies of what a step computes, in rows whose block has opened.

        A copy with nothing open says nothing, so there are at most two fewer than the block had
        open positions when it opened: its first step fills one, and the copy that is worth reading
        last leaves one.
        """
        table = rows.host.blocks
        found = (table.masks * (table.phase == Phase.OPEN)).amax(dim=1).tolist()
        (most,) = self.copies
        segments = (
            s._replace(extra=_copies(s, count))
            if s.write and len(s.predict) and (count := min(most, found[s.row] - 2)) > 0
            else s
            for s in plan.segments
        )
        return replace(plan, segments=tuple(segments))

    def propose(self, view: StepView) -> Proposal:
        """The steps of one token that the branches bear out, and a draft for the next forward."""
        left, commit = view.eligible, torch.zeros_like(view.eligible)
        branch = torch.zeros_like(view.token)
        going = left.any(dim=1, keepdim=True)
        drafted, order = (view.scratch[spec.name].gather(1, view.pos) for spec in DRAFT)
        token, confidence, copies = view.token, view.confidence, view.branches
        depth = 0 if copies is None else copies.token.shape[1]
        for level in range(depth + 1):
            best = top(confidence, left, 1) & going
            commit, left = commit | best, left & ~best
            if copies is None or level == depth:
                break
            told = (best & (order == level + 1) & (drafted == token)).any(dim=1, keepdim=True)
            seen = (copies.scored[:, level] | ~left).all(dim=1, keepdim=True)
            going = going & told & seen & left.any(dim=1, keepdim=True)
            here = going & left
            branch = torch.where(here, level + 1, branch)
            token = torch.where(here, copies.token[:, level], token)
            confidence = torch.where(here, copies.confidence[:, level], confidence)
        return Proposal(commit, scratch=_draft(view, left, token, confidence), branch=branch)


def _names(parts: tuple[object, ...]) -> str:
    return ", ".join(type(part).__name__ for part in parts)


def _copies(segment: Segment, count: int) -> Extra:
    """`count` copies of the segment's queries: each sees the stored keys that the segment does not
    make, and of the copies itself, as the segment sees what it makes.
    """
    q_pos = segment.q_pos
    ends = np.broadcast_to(np.asarray(segment.key_end), q_pos.shape)
    stored = np.arange(segment.keys) < ends[:, None]
    stored[:, q_pos[q_pos < segment.keys]] = False
    own = np.kron(np.eye(count, dtype=np.bool_), q_pos < ends[:, None])
    return Extra(
        ids=np.full(count * len(q_pos), -1),
        pos=np.tile(q_pos, count),
        mask=np.concatenate((np.tile(stored, (count, 1)), own), axis=1),
        branch=_numbered(count, len(q_pos)),
        wanted=np.tile(np.isin(q_pos, segment.predict), count),
    )


def _numbered(count: int, size: int) -> Ints:
    """1, 2, ... `count`, each `size` times."""
    return np.repeat(np.arange(1, count + 1), size)


def _draft(view: StepView, left: Tensor, token: Tensor, confidence: Tensor) -> dict[str, Tensor]:
    """The tokens of the positions that stay open, and their order: the most confident first, of
    equals the leftmost.
    """
    score = confidence.masked_fill(~left, -torch.inf)
    rank = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1) + 1
    order = rank.masked_fill(~left, 0)
    values = zip(DRAFT, (token, order), strict=True)
    kept = {spec.name: view.scratch[spec.name] for spec in DRAFT}
    return {spec.name: kept[spec.name].scatter(1, view.pos, value) for spec, value in values}
