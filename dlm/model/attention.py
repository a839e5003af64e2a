"""How a layer's queries find their keys: in a plain batch, or through the paged pool.

One callable per case; the decoder's layer loop is the same for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from dlm.core import Packed
    from dlm.model.kv import KVPool


class Attend(Protocol):
    """`(layer, q [T, H, Dh], k [T, Hkv, Dh], v [T, Hkv, Dh]) -> [T, H * Dh]`.

    q and k are already rotated.
    """

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend and concatenate the heads."""
        ...


class DenseAttend:
    """Attention inside a plain batch of `batch` equally long sequences; nothing is stored."""

    def __init__(self, batch: int, mask: Tensor | None) -> None:
        self.batch, self.mask = batch, mask

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `Attend`."""
        q, k, v = (
            x.unflatten(0, (self.batch, -1)).transpose(1, 2) for x in (q, k, v)
        )  # [B, h, L, Dh]
        return _heads_last(scaled_attention(q, k, v, self.mask))


class PackedAttend:
    """Attention through the paged pool.

    Stores the keys and values of the writing queries, then lets every group of segments read its
    slots.
    """

    def __init__(self, packed: Packed, kv: KVPool) -> None:
        self.packed, self.kv = packed, kv

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `Attend`."""
        written = self.packed.write_slots.shape[0]
        self.kv.write(layer, self.packed.write_slots, k[:written], v[:written])
        parts = []
        for group in self.packed.groups:
            keys, values = self.kv.read(layer, group.key_slots)  # [G, K, Hkv, Dh]
            if group.own:
                keys = torch.cat((keys, k[None, group.start : group.end]), dim=1)
                values = torch.cat((values, v[None, group.start : group.end]), dim=1)
            queries = q[group.start : group.end].unflatten(0, (keys.shape[0], -1))  # [G, q, H, Dh]
            mixed = scaled_attention(
                queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), group.mask
            )
            parts.append(_heads_last(mixed))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def scaled_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """`q [B, H, Q, Dh]`, `k, v [B, Hkv, K, Dh]`, boolean `mask` or None -> `[B, H, Q, Dh]`."""
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)


def _heads_last(x: Tensor) -> Tensor:
    """`[B, H, Q, Dh]` -> `[B * Q, H * Dh]`."""
    return x.transpose(1, 2).flatten(2).flatten(0, 1)
