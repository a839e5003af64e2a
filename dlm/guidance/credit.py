"""Credit: what the model has kept predicting counts for more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Self

import torch
from torch import Tensor

from dlm.core import Entries, Frame, Guide, Guided, Kind, ModelInfo, ScratchSpec, bound
from dlm.errors import InvalidRequest

MOST_ALPHA: Final = 1e4
"""Bound of `alpha`: far beyond any that is of use, and far from overflow."""
NO_ID: Final = -1
"""Stands for the id of an empty place."""


@dataclass(frozen=True, slots=True)
class Credit(Guide):
    """Raise the logits of ids that were the most likely ones of their position in earlier steps
    (dInfer arXiv 2510.08666, credit decoding).

    In each step the credit C of the ids of a position decays, `C = beta * C`; where the position is
    open, its most likely id but MASK gains `p ** gamma` (p: its probability in the softmax of the
    logits). Open positions are then decoded on `logits + alpha * log(1 + C)`. A row forgets all
    credit once nothing in it is open. Each position keeps the credit of `keep` ids; a further id
    takes the place of the one with the least, so that with as many as a position has different
    most likely ids this is the rule with a number for each id of the vocabulary. Positions that
    are not open, and shadow tokens, are left as they are.
    """

    tier = "T2"

    alpha: float = 0.7
    beta: float = 0.8
    gamma: float = 0.2
    keep: int = 8
    mask_id: int = bound(NO_ID)

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= MOST_ALPHA:
            raise InvalidRequest(
                "guide", f"`alpha` must be between 0 and {MOST_ALPHA:g}, got {self.alpha}"
            )
        if not 0 <= self.beta <= 1:
            raise InvalidRequest("guide", f"`beta` must be between 0 and 1, got {self.beta}")
        if not self.gamma >= 0:
            raise InvalidRequest("guide", f"`gamma` must be at least 0, got {self.gamma}")
        if self.keep < 1:
            raise InvalidRequest("guide", f"`keep` must be at least 1, got {self.keep}")

    @property
    def scratch(self) -> tuple[ScratchSpec, ...]:
        """For each position the ids that have credit, and how much."""
        return (
            ScratchSpec("credit_ids", "token", torch.long, fill=NO_ID, width=self.keep),
            ScratchSpec("credit", "token", torch.float32, width=self.keep),
        )

    def bind(self, info: ModelInfo) -> Self:
        """Take the id of MASK, which gains no credit.

        Raises `InvalidRequest` for more ids than the vocabulary has.
        """
        if self.keep > info.vocab_size:
            raise InvalidRequest(
                "guide",
                f"`keep` must be at most the size of the vocabulary, {info.vocab_size}, "
                f"got {self.keep}",
            )
        return replace(self, mask_id=NO_ID if info.mask_id is None else info.mask_id)

    def __call__(self, logits: Tensor, frame: Frame, params: Any) -> Guided:
        """`[arms, N, V]` -> the same shape; the first arm decides who gains."""
        window, slot = frame.window, frame.window.slot
        row = window.row[: len(slot)]
        flat, ids, credit = _decayed(frame, params.beta)
        is_open = (frame.kind >= Kind.MASK).take(slot)[:, None]
        gamma = params.gamma[row, 0]
        own_ids, own = self._gained(logits[0, : len(slot)], gamma, ids[slot], credit[slot])
        own_ids = torch.where(is_open, own_ids, ids[slot])
        own = torch.where(is_open, own, credit[slot])
        raised = params.alpha[row].to(own.dtype) * own.log1p().masked_fill(~is_open, 0.0)
        better, shape = logits.clone(), (len(logits), *own.shape)
        better[:, : len(slot)].scatter_add_(
            2, own_ids.clamp_min(0).expand(shape), raised.to(logits.dtype).expand(shape)
        )
        kept = {
            "credit_ids": Entries(flat, ids.index_copy(0, slot, own_ids)),
            "credit": Entries(flat, credit.index_copy(0, slot, own)),
        }
        return Guided(better, kept)

    def _gained(
        self, logits: Tensor, gamma: Tensor, ids: Tensor, credit: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`ids`, `credit [N, K]` after the most likely ids of `logits [N, V]` have gained.

        One that is not among the ids takes the place of the one with the least credit.
        """
        others = logits if self.mask_id == NO_ID else logits.clone()
        if self.mask_id != NO_ID:
            others[:, self.mask_id] = -torch.inf
        best, token = others.max(dim=1, keepdim=True)
        gain = (best - logits.logsumexp(dim=1, keepdim=True)).exp() ** gamma[:, None].to(best.dtype)
        known = ids == token
        seen, least = known.any(dim=1, keepdim=True), credit.argmin(dim=1, keepdim=True)
        place = torch.where(seen, known.int().argmax(dim=1, keepdim=True), least)
        before = torch.where(seen, credit.gather(1, place), 0.0)
        return ids.scatter(1, place, token), credit.scatter(1, place, before + gain)


def _decayed(frame: Frame, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of every column, row by row: its place in `[R, L]`, `[R * W]`, and its ids and their credit,
    `[R * W, K]`, after a further step; none in rows where nothing is open.
    """
    pos, stored = frame.window.pos, frame.scratch["credit"]
    first = torch.arange(len(pos), device=pos.device) * stored.shape[1]
    flat = (pos + first[:, None]).flatten()
    ids = frame.scratch["credit_ids"].flatten(0, 1).index_select(0, flat)
    credit = stored.flatten(0, 1).index_select(0, flat)
    idle = ~(frame.canvas_kind >= Kind.MASK).any(dim=1, keepdim=True)
    decay = beta.to(credit.dtype).masked_fill(idle, 0.0)
    return flat, ids, credit * decay.expand_as(pos).reshape(-1, 1)
