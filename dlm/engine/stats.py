"""`row_stats`: everything rules read of the logits, in one pass, and only what they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

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

    `logits [N, V]` are those that were read, `norm` the logarithms of their normalisers.
    """

    token: Tensor
    c: Tensor
    entropy: Tensor | None
    margin: Tensor | None
    gap: Tensor | None
    c_current: Tensor | None
    logits: Tensor
    norm: Tensor


def row_stats(
    logits: Tensor, mask_id: int | None, needs: frozenset[str], current: Tensor | None = None
) -> RowStats:
    """Greedy token, its confidence, and the statistics that `needs` names.

    `logits [N, V]` are float32 and stay as they are; no copy of them is made. MASK is never the
    token but keeps its share of the probability. Ties go to the lowest id. `current [N]`: the ids
    whose probability `c_current` is.
    """
    best, token, second = _best_two(logits, mask_id, wants_second=bool(needs & {"margin", "gap"}))
    most = best if mask_id is None else best.maximum(logits.select(1, mask_id))
    norm, entropy = _normalisers(logits, most, wants_entropy="entropy" in needs)
    c = (best - norm).exp()
    return RowStats(
        token,
        c,
        entropy,
        None if second is None else c - (second - norm).exp(),
        None if second is None else best - second,
        None if current is None else (logits.gather(1, current[:, None])[:, 0] - norm).exp(),
        logits,
        norm,
    )


CHUNK: Final = 512
"""Ids whose maximum is taken before its place is looked for."""
CACHED: Final = 1 << 17
"""Numbers that stay in a core's cache while one pass after the other reads them."""
LEAST: Final = -1e4
"""A logit so far below another has no probability in float32."""


def _best_two(
    logits: Tensor, mask_id: int | None, *, wants_second: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`[N]` each: the largest of `logits [N, V]`, its id, and the second largest; MASK left out.

    A maximum costs a tenth of its place, so the place is looked for in one chunk alone: that with
    the largest maximum, the first of equals.
    """
    size = logits.shape[1]
    parts = logits[:, : size // CHUNK * CHUNK].unflatten(1, (-1, CHUNK)).amax(2)  # [N, C]
    if size % CHUNK:
        rest = logits[:, size // CHUNK * CHUNK :].amax(1, keepdim=True)
        parts = torch.cat((parts, rest), dim=1)
    if mask_id is not None:
        start = mask_id // CHUNK * CHUNK
        without = logits[:, start : start + CHUNK].clone()
        without[:, mask_id - start] = -torch.inf
        parts[:, mask_id // CHUNK] = without.amax(1)
    chunk = parts.argmax(1, keepdim=True)  # [N, 1]
    ids = chunk * CHUNK + torch.arange(CHUNK, device=logits.device)  # [N, CHUNK]
    outside = ids >= size if mask_id is None else (ids >= size) | (ids == mask_id)
    inside = logits.gather(1, ids.clamp_max(size - 1)).masked_fill_(outside, -torch.inf)
    best, place = inside.max(1, keepdim=True)
    second = None
    if wants_second:
        others = parts.scatter_(1, chunk, -torch.inf).amax(1)
        second = others.maximum(inside.scatter_(1, place, -torch.inf).amax(1))
    return best[:, 0], (chunk * CHUNK + place)[:, 0], second


def _normalisers(
    logits: Tensor, most: Tensor, *, wants_entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """`[N]`: the logarithm of each row's normaliser and, if wanted, its entropy in nats.

    `most [N]`: the largest of each row. On the CPU a few rows at a time.
    """
    count, size = logits.shape
    rows = max(1, CACHED // size if logits.device.type == "cpu" else count)
    sums, energies = [logits.new_empty(0)], [logits.new_empty(0)]
    for part, top in zip(logits.split(rows), most.split(rows), strict=True):
        behind = part - top[:, None]
        if wants_entropy:
            behind = behind.clamp_min_(LEAST)  # 0 times -inf is no number
            shares = behind.exp()
            energies.append(torch.linalg.vecdot(shares, behind))
        else:
            shares = behind.exp_()
        sums.append(shares.sum(1))
    total = torch.cat(sums)
    entropy = total.log() - torch.cat(energies) / total if wants_entropy else None
    return most + total.log(), entropy


def draw_tokens(
    stats: RowStats, mask_id: int | None, sampler: Sampler, row: Tensor, u: Tensor
) -> RowStats:
    """Replace the greedy tokens by draws, with `row [N]` of each and uniforms `u [N]`.

    MASK is never drawn. The confidence becomes the clean probability (temperature 1, no filter) of
    the drawn id.
    """
    temperature = sampler.temperature[row]
    warm = temperature > 0
    behind = stats.logits.clone()
    if mask_id is not None:
        behind.select(1, mask_id).fill_(-torch.inf)
    behind -= behind.amax(dim=1, keepdim=True)  # so that nothing overflows
    probs = torch.softmax(behind / torch.where(warm, temperature, 1.0)[:, None], dim=1)
    if sampler.filters:
        probs = _filtered(probs, sampler.top_p[row], sampler.top_k[row])
    token = torch.where(warm, draw(probs, u), stats.token)
    c = (stats.logits.gather(1, token[:, None])[:, 0] - stats.norm).exp()
    return stats._replace(token=token, c=c)


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
