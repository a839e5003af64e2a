"""`row_stats`: everything rules read of the logits, in one pass, and only what they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from dlm.rng import draw, uniforms

DRAW_STREAM = 0
"""Stream of the uniforms that draw tokens."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """How rows draw: `temperature`, `top_p`, `top_k` `[R]`.

    A row with temperature 0 takes the most likely id. Both filters look at the tempered
    distribution: top-p keeps the smallest set of best ids whose mass reaches p, top-k the k best
    (0: all). `filters`: some row uses one of them.
    """

    temperature: Tensor
    top_p: Tensor
    top_k: Tensor
    filters: bool

    def select(self, index: Tensor) -> Sampler:
        """The rows `index [r]`."""
        return replace(
            self,
            temperature=self.temperature.index_select(0, index),
            top_p=self.top_p.index_select(0, index),
            top_k=self.top_k.index_select(0, index),
        )

    @staticmethod
    def cat(parts: Sequence[Sampler]) -> Sampler:
        """Stack the rows of several samplers."""
        return Sampler(
            torch.cat([p.temperature for p in parts]),
            torch.cat([p.top_p for p in parts]),
            torch.cat([p.top_k for p in parts]),
            any(p.filters for p in parts),
        )


class RowStats(NamedTuple):
    """Statistics `[N]` of N logit rows; see `StepView`.

    `logits [N, V]` are normalised, with MASK struck out.
    """

    token: Tensor
    c: Tensor
    entropy: Tensor | None
    margin: Tensor | None
    c_current: Tensor | None
    logits: Tensor


def row_stats(
    logits: Tensor, mask_id: int | None, needs: frozenset[str], current: Tensor | None = None
) -> RowStats:
    """Greedy token, its confidence, and the statistics that `needs` names.

    `logits [N, V]` are float32; one softmax serves all statistics. MASK is never the token but
    keeps its share of the probability: it is struck out (-inf) after the normalisation. Ties go to
    the lowest id. `current [N]`: the ids whose probability `c_current` is.
    """
    logp = torch.log_softmax(logits, dim=1)
    entropy = c_current = margin = None
    if "entropy" in needs:
        entropy = -(logp.exp() * logp.clamp_min(_FINITE)).sum(dim=1)
    if current is not None:
        c_current = logp.gather(1, current[:, None])[:, 0].exp()
    if mask_id is not None:
        logp.select(1, mask_id).fill_(-torch.inf)
    if "margin" in needs:
        best, second = logp.topk(2, dim=1).values.exp().unbind(1)
        margin = best - second
    most, token = logp.max(dim=1)
    return RowStats(token, most.exp(), entropy, margin, c_current, logp)


_FINITE = torch.finfo(torch.float32).min
"""Stands in for -inf where it meets a probability of zero."""


def draw_tokens(stats: RowStats, sampler: Sampler, row: Tensor, u: Tensor) -> RowStats:
    """Replace the greedy tokens by draws, with `row [N]` of each and uniforms `u [N]`.

    The confidence becomes the clean probability (temperature 1, no filter) of the drawn id.
    """
    temperature = sampler.temperature[row]
    warm = temperature > 0
    behind = stats.logits - stats.logits.amax(dim=1, keepdim=True)  # so that nothing overflows
    probs = torch.softmax(behind / torch.where(warm, temperature, 1.0)[:, None], dim=1)
    if sampler.filters:
        probs = _filtered(probs, sampler.top_p[row], sampler.top_k[row])
    token = torch.where(warm, draw(probs, u), stats.token)
    return stats._replace(token=token, c=stats.logits.gather(1, token[:, None])[:, 0].exp())


def _filtered(probs: Tensor, top_p: Tensor, top_k: Tensor) -> Tensor:
    """Zero what top-p and top-k exclude; the best id always stays. `probs [N, V]`, limits `[N]`."""
    ordered, order = probs.sort(dim=1, descending=True, stable=True)
    before = ordered.double().cumsum(dim=1) - ordered
    rank = torch.arange(probs.shape[1], device=probs.device)
    limit = torch.where(top_k > 0, top_k, probs.shape[1])
    keep = (before < top_p[:, None]) & (rank < limit[:, None])
    keep[:, 0] = True
    return torch.zeros_like(probs).scatter_(1, order, ordered * keep)


def token_uniforms(seed: Tensor, path: Tensor, pos: Tensor, step: Tensor) -> Tensor:
    """Uniforms `[R, W]` that draw the tokens of a step."""
    return uniforms(seed, path, pos, step, DRAW_STREAM)
