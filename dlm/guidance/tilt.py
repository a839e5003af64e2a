"""A tilt of the logits by a reward that the caller computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import torch
from torch import Tensor

from dlm.core import Frame, Guide, ModelInfo, bound
from dlm.errors import Culprit, DlmError, InvalidRequest, RuleError, charge, shown

MOST_STRENGTH: Final = 1e4
"""Bound of `strength`: far beyond any that is of use, and far from overflow."""
NO_ID: Final = -1
"""Stands for the mask of a model that has none."""


@dataclass(frozen=True, slots=True)
class Tilt(Guide):
    """Add `strength` times a reward to the logits in every step: `p' ~ p * exp(strength * reward)`.

    `reward(frame, logits)` returns a number for each of `logits [N, V]`; with `candidates=K`,
    `reward(frame, logits, ids)` returns one for each of the K most likely ids but MASK of every
    position, `logits [N, K]` and `ids [N, K]`, and all others have the reward 0. Row n of the
    logits is that of the flat place `frame.window.slot[n]` in `frame.ids [R, W]`, of row
    `frame.window.row[n]`. Rewards may be -inf, which bars an id. It is called once in each step for
    all rows that share it, so that what it says of a row must not depend on the others. It is a
    Python callable: no text names one, and no request over HTTP. Shadow tokens stay as they are.
    """

    tier = "T2"

    reward: Callable[..., Tensor]
    strength: float = 1.0
    candidates: int | None = None
    mask_id: int = bound(NO_ID)

    def __post_init__(self) -> None:
        if not callable(self.reward):
            raise InvalidRequest(
                "guide",
                "`reward` must be a callable, which only Python can give: "
                f"Tilt(my_function), got {shown(self.reward)}",
            )
        if not 0 < self.strength <= MOST_STRENGTH:
            raise InvalidRequest(
                "guide",
                f"`strength` must be above 0 and at most {MOST_STRENGTH:g}, got {self.strength}",
            )
        if self.candidates is not None and self.candidates < 1:
            raise InvalidRequest("guide", f"`candidates` must be at least 1, got {self.candidates}")

    def bind(self, info: ModelInfo) -> Self:
        """Take the id of MASK, which is no candidate.

        Raises `InvalidRequest` for more candidates than there are ids.
        """
        most = info.vocab_size - (info.mask_id is not None)
        if self.candidates is not None and self.candidates > most:
            raise InvalidRequest(
                "guide", f"`candidates` must be at most {most}, got {self.candidates}"
            )
        return replace(self, mask_id=NO_ID if info.mask_id is None else info.mask_id)

    def __call__(self, logits: Tensor, frame: Frame, params: Any) -> Tensor:
        """`[arms, N, V]` -> the same shape; the reward reads the first arm.

        Raises what the reward raises, and `RuleError` for what is no reward.
        """
        count = len(frame.window.slot)
        tilted, clean = logits.clone(), logits[0, :count]
        if self.candidates is None:
            bonus = self._rewards(frame, clean)
        else:
            others = clean if self.mask_id == NO_ID else clean.clone()
            if self.mask_id != NO_ID:
                others[:, self.mask_id] = -torch.inf
            best, ids = others.topk(self.candidates, dim=1)
            bonus = torch.zeros_like(clean).scatter_(1, ids, self._rewards(frame, best, ids))
        tilted[:, :count] += params.strength[frame.window.row[:count]].to(bonus.dtype) * bonus
        lost = ~tilted[0, :count].amax(dim=1).isfinite() & clean.amax(dim=1).isfinite()
        if bool(lost.any()):
            raise self._wrong("must leave every position an id, with no NaN and no +inf")
        return tilted

    def _rewards(self, frame: Frame, logits: Tensor, *ids: Tensor) -> Tensor:
        """A reward for each of the logits, of their shape, type and device."""
        wanted = f"must return a tensor {list(logits.shape)} on {logits.device}"
        try:
            bonus: Any = self.reward(frame, logits, *ids)
        except DlmError:
            raise
        except Exception as error:
            charge(error, self._culprit)
            raise
        if not isinstance(bonus, Tensor):
            raise self._wrong(f"{wanted}, got {shown(bonus)}")
        if bonus.shape != logits.shape or bonus.device != logits.device or bonus.is_complex():
            raise self._wrong(f"{wanted}, got {list(bonus.shape)} on {bonus.device}")
        return bonus.to(logits.dtype)

    @property
    def _culprit(self) -> Culprit:
        """The reward as the one at fault."""
        reward = self.reward
        name = getattr(reward, "__qualname__", type(reward).__qualname__)
        code = getattr(reward, "__code__", None)
        line = "" if code is None else f"{code.co_filename}:{code.co_firstlineno}"
        return Culprit("guide", f"Tilt by {name}", line)

    def _wrong(self, rule: str) -> RuleError:
        return RuleError(self._culprit, f"the reward {rule}")
