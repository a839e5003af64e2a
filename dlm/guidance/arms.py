"""Guidance by a second model input of each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

from torch import Tensor

from dlm.core import Frame, Guide, ModelInfo
from dlm.errors import InvalidRequest

MOST_SCALE: Final = 1e4
"""Bound of `scale`: far beyond any that is of use, and far from overflow."""


@dataclass(frozen=True, slots=True)
class CFG(Guide):
    """Classifier-free guidance: push the logits away from those of the same canvas without its
    prompt (LLaDA arXiv 2502.09992; Nie et al. arXiv 2410.18514).

    `logits = u + (scale + 1) * (l - u)`, where u comes from a second input of the row whose prompt
    is masked; every forward computes both. `scale=0` is no guidance.
    """

    scale: float

    tier = "T1"
    arms = 2

    def __post_init__(self) -> None:
        if not 0 <= self.scale <= MOST_SCALE:
            raise InvalidRequest(
                "guide", f"`scale` must be between 0 and {MOST_SCALE:g}, got {self.scale}"
            )

    def bind(self, info: ModelInfo) -> Self:
        """Raises `InvalidRequest` on models without a mask to hide the prompt behind."""
        if info.mask_id is None:
            raise InvalidRequest(
                "guide", f"'cfg' masks the prompt, and this model ({info.family}) has no mask"
            )
        return self

    def __call__(self, logits: Tensor, frame: Frame, params: Any) -> Tensor:
        """`[2, N, V]` -> `[1, N, V]`."""
        scale = params.scale[frame.window.row].to(logits.dtype)  # [N, 1]
        conditional, free = logits
        guided: Tensor = free + (scale + 1) * (conditional - free)
        return guided[None]
