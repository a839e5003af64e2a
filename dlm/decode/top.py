"""The most likely ids at each position, for rows that ask for them."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from dlm.core import StepView

LOW_HALF: Final = (1 << 32) - 1
"""The bits of a key that order equal logits by their ids."""
KEYS: Final = 1 << 24
"""Keys that are made at once."""


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
