"""Guidance by a second masked model that reads the same canvas."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Self

import torch
from torch import Tensor

from dlm.core import Frame, Guide, ModelInfo, bound
from dlm.errors import InvalidRequest, shown

MOST_WEIGHT: Final = 1e4
"""Bound of weights: far beyond any that is of use, and far from overflow."""
NO_ID: Final = -1
"""Stands for the mask of a model that has none."""


def _require_every(every: int) -> None:
    if every < 1:
        raise InvalidRequest("guide", f"`every` must be at least 1, got {every}")


def _require_names(param: str, names: tuple[str, ...]) -> None:
    if not names or len(set(names)) < len(names) or not all(n.isidentifier() for n in names):
        raise InvalidRequest(
            "guide",
            f"`{param}` must name models that were loaded as `aux`, each once, got {shown(names)}",
        )


@dataclass(frozen=True, slots=True)
class Contrast(Guide):
    """Push the distribution away from that of a second masked model (reward-free guidance, RFG
    arXiv 2509.25604; RLG is the same with `1 + weight`).

    `log p' = (1 + weight) * log p - weight * log p_ref`, normalised anew; p_ref is that of the
    model loaded as `aux={ref: ...}` for the same canvas, commonly the one before its tuning. Ids
    with `p <= plausible * max p` (of the ids but MASK) are struck out, so that what the reference
    finds unlikely is not rewarded for that alone. `every`: the reference reads the canvas in every
    so many steps. `weight=0` with `plausible=0.0` is no guidance, `weight=-1` the reference alone
    among the plausible ids. Ids that the reference lacks are struck out; shadow tokens are left as
    they are. The confidence of a token is its guided probability, which is sharper.
    """

    tier = "T3"

    weight: float = 1.0
    plausible: float = 0.1
    ref: str = "ref"
    every: int = 1
    mask_id: int = bound(NO_ID)

    def __post_init__(self) -> None:
        if not -1 <= self.weight <= MOST_WEIGHT:
            raise InvalidRequest(
                "guide", f"`weight` must be between -1 and {MOST_WEIGHT:g}, got {self.weight}"
            )
        if not 0 <= self.plausible < 1:
            raise InvalidRequest(
                "guide", f"`plausible` must be at least 0 and below 1, got {self.plausible}"
            )
        _require_names("ref", (self.ref,))
        _require_every(self.every)

    @property
    def needs(self) -> frozenset[str]:
        """The reference."""
        return frozenset((self.ref,))

    def bind(self, info: ModelInfo) -> Self:
        """Take the id of MASK, which does not say what is plausible."""
        return replace(self, mask_id=NO_ID if info.mask_id is None else info.mask_id)

    def __call__(self, logits: Tensor, frame: Frame, params: Any) -> Tensor:
        """`[1, N, V]` -> the same shape."""
        count, reference = len(frame.window.slot), frame.references[self.ref]
        row = frame.window.row[:count]
        logp = torch.log_softmax(logits[:, :count], dim=2)
        others = logp.clone()
        if self.mask_id != NO_ID:
            others[:, :, self.mask_id] = -torch.inf
        plausible = params.plausible[row].to(logp.dtype).log()  # [N, 1]; -inf: all of them
        far = (logp <= others.amax(dim=2, keepdim=True) + plausible) | reference.isneginf()
        weight = params.weight[row].to(logp.dtype)
        own, away = logp.clamp_min(torch.finfo(logp.dtype).min), reference.masked_fill(far[0], 0.0)
        pushed = torch.log_softmax(
            ((1 + weight) * own - weight * away).masked_fill(far, -torch.inf), dim=2
        )
        return torch.cat((pushed, logits[:, count:]), dim=1)


@dataclass(frozen=True, slots=True)
class Ensemble(Guide):
    """Decode on a weighted mean of the log-probabilities of several masked models.

    `log p' = w_0 * log p + w_1 * log p_1 + ...`, normalised anew; p_i is that of the model loaded
    as `aux={refs[i - 1]: ...}` for the same canvas: another checkpoint, say. `weights`: the model's
    own, then one for each reference, divided by their sum (None: all the same). `every`: the
    references read the canvas in every so many steps. Ids that one of them lacks are struck out;
    shadow tokens are left as they are.
    """

    tier = "T2"

    refs: tuple[str, ...] = ("ref",)
    weights: tuple[float, ...] | None = None
    every: int = 1

    def __post_init__(self) -> None:
        _require_names("refs", self.refs)
        _require_every(self.every)
        if self.weights is not None and (
            len(self.weights) != len(self.refs) + 1
            or not all(0 < weight <= MOST_WEIGHT for weight in self.weights)
        ):
            raise InvalidRequest(
                "guide",
                f"`weights` must hold {len(self.refs) + 1} numbers above 0, the model's own first, "
                f"got {shown(self.weights)}",
            )

    @property
    def needs(self) -> frozenset[str]:
        """The references."""
        return frozenset(self.refs)

    def bind(self, info: ModelInfo) -> Self:
        """Divide the weights by their sum."""
        weights = self.weights or (1.0,) * (len(self.refs) + 1)
        return replace(self, weights=tuple(float(weight) / sum(weights) for weight in weights))

    def __call__(self, logits: Tensor, frame: Frame, params: Any) -> Tensor:
        """`[1, N, V]` -> the same shape."""
        count, weights = len(frame.window.slot), params.weights.to(logits.dtype)
        mean = weights[0] * torch.log_softmax(logits[:, :count], dim=2)
        for place, name in enumerate(self.refs, start=1):
            mean = mean + weights[place] * frame.references[name]
        return torch.cat((torch.log_softmax(mean, dim=2), logits[:, count:]), dim=1)
