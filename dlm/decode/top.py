"""The tokens that a step drew, and the most likely ids at each position, for those that ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlm.core import StepView

LOW_HALF: Final = (1 << 32) - 1
"""The bits of a key that order equal logits by their ids."""
KEYS: Final = 1 << 24
"""Keys that are made at once."""


class Draft(NamedTuple):
    """The token that a step drew for a position.

    conf: its confidence
    top: the most likely ids there, with their probabilities (empty where no row asks for them)
    """

    id: int
    conf: float
    top: tuple[tuple[int, float], ...] = ()


def read_top(view: StepView, count: int) -> Tensor:
    """The `count` most likely ids but MASK of each position, and the bits of their probabilities
    side by side, `[R, W, 2 K]` int64; K is less than `count` where the model has fewer ids.

    Probabilities are those of the guided logits at temperature 1, with MASK in the denominator. The
    id that the position takes has just the probability that its commit tells.
    """
    ids = most_likely(view.logits, view.mask_id, count)
    logp = view.logits.gather(1, ids) - view.stats.logsumexp[:, None]
    place, shape = view.window.logit_row.flatten(), (*view.pos.shape, ids.shape[1])
    ids, probs = (found.index_select(0, place).view(shape) for found in (ids, logp.exp()))
    probs = torch.where(ids == view.token[..., None], view.confidence[..., None], probs)
    probs = probs.minimum(probs[..., :1])  # rounding never puts another one above the first
    return torch.cat((ids, probs.view(torch.int32)), dim=2)


def most_likely(logits: Tensor, mask_id: int | None, count: int) -> Tensor:
    """`[N, K]`: the ids but MASK with the largest `logits [N, V]`, equal ones in ascending order.

    As a plain top-k leaves the order of equals open, it runs over keys that differ: the bits of the
    logit as an integer that grows with it, and after them those of the id.
    """
    size = logits.shape[1]
    count = min(count, size - (mask_id is not None))
    parts = logits.split(max(1, KEYS // size))
    found = [_keys(part, mask_id).topk(count, dim=1).values for part in parts]
    return size - 1 - (torch.cat(found) & LOW_HALF)


def _keys(logits: Tensor, mask_id: int | None) -> Tensor:
    """The keys of `logits [N, V]`, int64; that of MASK is below all others."""
    size = logits.shape[1]
    bits = (logits + 0.0).view(torch.int32)  # of a copy without negative zeros
    keys = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long() << 32
    keys += torch.arange(size - 1, -1, -1, device=logits.device)
    if mask_id is not None:
        keys.select(1, mask_id).fill_(torch.iinfo(torch.int64).min)
    return keys


def drafts_of(columns: Sequence[Tensor], top: Tensor | None) -> dict[int, Draft]:
    """The draft at each position of a row that has logits, of a step.

    columns: positions with logits, all positions, tokens and confidences, each `[W]`
    top: the most likely ids and the bits of their probabilities (None: no row asks for them)
    """
    scored, *shown = columns
    found = scored.nonzero()[:, 0]
    pos, ids, conf = (column.index_select(0, found).tolist() for column in shown)
    likely = [()] * len(pos) if top is None else pairs_of(top.index_select(0, found).cpu().numpy())
    return dict(zip(pos, map(Draft, ids, conf, likely), strict=True))


def pairs_of(top: NDArray[Any]) -> list[tuple[tuple[int, float], ...]]:
    """Ids with their probabilities, of `[n, 2 K]` with the bits of these."""
    ids, bits = np.split(top, 2, axis=1)
    probs = bits.astype(np.int32).view(np.float32)
    pairs = zip(ids.tolist(), probs.tolist(), strict=True)
    return [tuple(zip(*pair, strict=True)) for pair in pairs]
