"""Scores and ranks that unmaskers share."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from dlm.core import SamplingStats, StepView
from dlm.errors import InvalidRequest
from dlm.rng import Stream, uniforms

Score = Literal["confidence", "entropy", "margin", "random", "left"]


SCORES: tuple[Score, ...] = get_args(Score)


ConfFrom = Literal["clean", "tempered"]
"""Whose numbers a rule reads: of the clean logits (LLaDA, Fast-dLLM), or of the distribution that
tokens are drawn from, tempered and filtered (Dream, SDAR).
"""


def require_ordered(low: str, least: float, high: str, most: float) -> None:
    """Raise `InvalidRequest` unless the thresholds named `low` and `high` are in order."""
    if not 0 <= least <= most <= 1:
        raise InvalidRequest(
            "unmask",
            f"`{low}` and `{high}` must be 0 <= {low} <= {high} <= 1, got {least} and {most}",
        )


def require_share(name: str, value: float) -> None:
    """Raise `InvalidRequest` unless an unmasker's `name` is between 0 and 1."""
    if not 0 <= value <= 1:
        raise InvalidRequest("unmask", f"`{name}` must be between 0 and 1, got {value}")


def require_conf_from(value: ConfFrom) -> None:
    """Raise `InvalidRequest` unless it is one of the two."""
    if value not in get_args(ConfFrom):
        choices = " or ".join(map(repr, get_args(ConfFrom)))
        raise InvalidRequest("unmask", f"`conf_from` must be {choices}, got {value!r}")


def needs_of(score: Score, conf_from: ConfFrom = "clean") -> frozenset[str]:
    """Statistics a score reads beyond the confidence."""
    if conf_from == "tempered":
        return frozenset({"sampling"})
    return frozenset({score}) if score in ("entropy", "margin") else frozenset()


def confidence_of(view: StepView, conf_from: ConfFrom) -> Tensor:
    """`[R, W]`: the probability of the token."""
    return view.confidence if conf_from == "clean" else sampling_of(view).confidence


def sampling_of(view: StepView) -> SamplingStats:
    """The statistics of the sampling distribution, which `needs` has asked for."""
    assert view.stats.sampling is not None
    return view.stats.sampling


def score_of(score: Score, view: StepView, conf_from: ConfFrom = "clean") -> Tensor:
    """`[R, W]`: higher commits earlier."""
    if score == "left":
        return -view.pos.double()
    if score == "random":
        return uniforms(view.row.seed, view.row.path, view.pos, view.row.step, Stream.ORDER)
    if score == "confidence":
        return confidence_of(view, conf_from)
    stats = view.stats if conf_from == "clean" else sampling_of(view)
    value = stats.entropy if score == "entropy" else stats.margin
    assert value is not None
    return -value if score == "entropy" else value


def top(score: Tensor, among: Tensor, count: Tensor | Literal[1]) -> Tensor:
    """The best of `among [R, W]` as a mask: `count [R, 1]` of them, or one in each row.

    Ties go to the leftmost position.
    """
    score = score.masked_fill(~among, -torch.inf)
    if isinstance(count, int):
        best = score.argmax(dim=1, keepdim=True)
        return among & (torch.arange(score.shape[1], device=score.device) == best)
    rank = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return among & (rank < count)


def first_position(view: StepView) -> Tensor:
    """`[R, W]`: the first eligible position of each row."""
    return view.eligible & (view.eligible.cumsum(dim=1) == 1)


def opens_alone(view: StepView, commit: Tensor) -> Tensor:
    """`[R, W]`: the first position where the block of a row has just opened, `commit` elsewhere.

    Fast-dLLM's cached steps on Dream cannot predict a block's first position, whose logits are
    those of the position before it; so the forward that renews the keys commits it, and it alone.
    """
    (step,) = view.of_first_block(view.blocks.step)
    return torch.where(step == 0, first_position(view), commit)


def gumbel_scores(score: Tensor, temperature: Tensor, view: StepView) -> Tensor:
    """`[R, W]`: a score whose best positions are a draw without replacement, with probabilities
    `softmax(score / temperature)` (Gumbel-top-k, arXiv 1903.06059; Dream's `alg_temp`).
    """
    u = uniforms(view.row.seed, view.row.path, view.pos, view.row.step, Stream.ORDER)
    return score / temperature - torch.log(-torch.log(u.clamp_min(_TINY)))


_TINY = 1e-300
"""A uniform may be 0, its logarithm must not be infinite."""
