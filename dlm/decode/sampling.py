"""`row_stats`: everything rules read of the logits, in one pass, and only what they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import torch
from torch import Tensor

from dlm.core import MIN_LOGIT
from dlm.core.struct import TensorStruct
from dlm.rng import Stream, draw, uniforms


@dataclass(frozen=True, slots=True)
class Sampler(TensorStruct):
    """The way rows draw.

    A row with temperature 0 takes the most likely id. Both filters look at the tempered
    distribution.

    temperature: `[R]` float32.
    top_p: keeps the smallest set of best ids whose mass reaches it, `[R]` float32.
    top_k: keeps this many of the best ids (0: all), `[R]` int64.
    filters: some row uses one of both.
    """

    temperature: Tensor
    top_p: Tensor
    top_k: Tensor
    filters: bool = field(metadata={"join": any})


class RowStats(NamedTuple):
    """Statistics `[N]` of N logit rows; see `StepView`.

    `logits [N, V]` are those that were read, `logsumexp` the logarithms of their normalisers.
    `drawn_from [N, V]`: what tokens were drawn from, tempered and filtered but not normalised, MASK
    struck out, and `drawn` the probability of the token there, 1 in greedy rows; None where nothing
    was drawn.
    """

    token: Tensor
    confidence: Tensor
    argmax: Tensor | None
    entropy: Tensor | None
    margin: Tensor | None
    logit_margin: Tensor | None
    prob_current: Tensor | None
    logits: Tensor
    logsumexp: Tensor
    drawn_from: Tensor | None = None
    drawn: Tensor | None = None

    def split(self, counts: Sequence[int]) -> list[RowStats]:
        """The statistics of each part of the rows."""
        if len(counts) == 1:
            return [self]
        columns = ([None] * len(counts) if v is None else v.split(counts) for v in self)
        return [RowStats(*own) for own in zip(*columns, strict=True)]


def row_stats(
    logits: Tensor, mask_id: int | None, needs: frozenset[str], current: Tensor | None = None
) -> RowStats:
    """Greedy token, its confidence, and the statistics that `needs` names.

    `logits [N, V]` are float32 and stay as they are. MASK is never the token but keeps its share of
    the probability. Ties go to the lowest id. `current [N]`: the ids whose probability
    `prob_current`
    is.
    """
    read = _read_small if logits.shape[1] <= SMALL else _read_large
    found = read(
        logits, mask_id, second=bool(needs & {"margin", "logit_margin"}), entropy="entropy" in needs
    )
    best, second, logsumexp = found.best, found.second, found.logsumexp
    c = best.exp()
    return RowStats(
        found.token,
        c,
        found.token if "argmax" in needs else None,
        found.entropy,
        None if second is None else c - second.exp(),
        None if second is None else best - second,
        None if current is None else (logits.gather(1, current[:, None])[:, 0] - logsumexp).exp(),
        logits,
        logsumexp,
    )


class _Read(NamedTuple):
    """`[N]` of each row: the most likely token but MASK, its log-probability and that of the second
    one (None: not wanted), the logarithm of the normaliser, and the entropy (or None).
    """

    token: Tensor
    best: Tensor
    second: Tensor | None
    logsumexp: Tensor
    entropy: Tensor | None


SMALL: Final = 4096
"""Up to so many ids a normalised copy is the cheapest."""
CHUNK: Final = 512
"""Ids whose maximum is taken before its place is looked for, where there are many."""
CACHE_FLOATS: Final = 1 << 17
"""Numbers that stay in a core's cache while one pass after the other reads them."""


def _read_small(logits: Tensor, mask_id: int | None, *, second: bool, entropy: bool) -> _Read:
    """Few ids: all from one normalised copy."""
    logp = torch.log_softmax(logits, dim=1)
    entropies = -torch.linalg.vecdot(logp.exp(), logp.clamp_min(MIN_LOGIT)) if entropy else None
    if mask_id is not None:
        logp.select(1, mask_id).fill_(-torch.inf)
    best, token = logp.max(1)
    at = token[:, None]
    logsumexp = logits.gather(1, at)[:, 0] - best
    runner_up = logp.scatter_(1, at, -torch.inf).amax(1) if second else None
    return _Read(token, best, runner_up, logsumexp, entropies)


def _read_large(logits: Tensor, mask_id: int | None, *, second: bool, entropy: bool) -> _Read:
    """Many ids: no copy; the place of the maximum is looked for in one chunk."""
    first, inside, others = _largest_chunk(logits, mask_id)
    best, place = inside.max(1, keepdim=True)
    most = best[:, 0] if mask_id is None else best[:, 0].maximum(logits.select(1, mask_id))
    logsumexp, entropies = _normalisers(logits, most, entropy=entropy)
    runner_up = None
    if second:
        runner_up = inside.scatter_(1, place, -torch.inf).amax(1).maximum(others) - logsumexp
    return _Read((first + place)[:, 0], best[:, 0] - logsumexp, runner_up, logsumexp, entropies)


def _largest_chunk(logits: Tensor, mask_id: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """The chunk that holds the largest logit, the first of equals: its first id `[N, 1]`, a copy of
    its logits `[N, CHUNK]`, and the largest logit of all other chunks `[N]`. MASK is left out.

    A maximum alone costs a tenth of one with its place.
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
    chunk = parts.argmax(1, keepdim=True)
    ids = chunk * CHUNK + torch.arange(CHUNK, device=logits.device)
    outside = ids >= size if mask_id is None else (ids >= size) | (ids == mask_id)
    inside = logits.gather(1, ids.clamp_max(size - 1)).masked_fill_(outside, -torch.inf)
    return chunk * CHUNK, inside, parts.scatter_(1, chunk, -torch.inf).amax(1)


def _normalisers(logits: Tensor, most: Tensor, *, entropy: bool) -> tuple[Tensor, Tensor | None]:
    """`[N]`: the logarithm of each row's normaliser and, if wanted, its entropy in nats.

    `most [N]`: the largest of each row. On the CPU a few rows at a time.
    """
    count, size = logits.shape
    rows = max(1, CACHE_FLOATS // size if logits.device.type == "cpu" else count)
    sums, energies = [logits.new_empty(0)], [logits.new_empty(0)]
    for part, top in zip(logits.split(rows), most.split(rows), strict=True):
        behind = part - top[:, None]
        if entropy:
            behind = behind.clamp_min_(MIN_LOGIT)
            shares = behind.exp()
            energies.append(torch.linalg.vecdot(shares, behind))
        else:
            shares = behind.exp_()
        sums.append(shares.sum(1))
    total = torch.cat(sums)
    return most + total.log(), total.log() - torch.cat(energies) / total if entropy else None


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
    clean = (stats.logits.gather(1, token[:, None])[:, 0] - stats.logsumexp).exp()
    drawn = probs.gather(1, token[:, None])[:, 0] / probs.sum(dim=1)
    return stats._replace(
        token=token,
        confidence=torch.where(warm, clean, stats.confidence),
        drawn_from=probs,
        drawn=torch.where(warm, drawn, 1.0),
    )


def sampling_stats(
    stats: RowStats, mask_id: int | None, sampler: Sampler | None, row: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`[N]` each: the probability of the token, the entropy and the margin in the distributions
    that tokens are drawn from (see `SamplingStats`), with `row [N]` of each. Greedy rows have
    temperature 1.
    """
    logits = stats.logits - stats.logits.amax(dim=1, keepdim=True)
    if sampler is not None:
        temperature = sampler.temperature[row]
        logits /= torch.where(temperature > 0, temperature, 1.0)[:, None]
    probs = torch.softmax(logits, dim=1)
    if sampler is not None and sampler.filters and stats.drawn_from is not None:
        kept = stats.drawn_from / stats.drawn_from.sum(dim=1, keepdim=True)
        filters = (sampler.top_p[row] < 1) | (sampler.top_k[row] > 0)
        probs = torch.where(filters[:, None], kept, probs)
    entropy = torch.special.entr(probs).sum(dim=1)
    if mask_id is not None:
        probs.select(1, mask_id).fill_(0.0)
    first, second = probs.topk(2, dim=1).values.unbind(1)
    return probs.gather(1, stats.token[:, None])[:, 0], entropy, first - second


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
    return uniforms(seed, path, pos, step, Stream.DRAW)
