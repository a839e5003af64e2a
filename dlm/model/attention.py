"""Attention of a layer's queries to their keys: in a plain batch, or through the paged store.

One callable per case; the decoder's layer loop is the same for both.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from dlm.core import RaggedGroup

if TYPE_CHECKING:
    from dlm.core import Packed
    from dlm.model.kv_store import KVStore
    from dlm.model.spec import ModelSpec

FLASH_HEADS: Final = 256
FLASH_STEP: Final = 8
"""Flash attention takes heads up to this size, and whose size is a multiple of this."""
FLASH_CHIPS: Final = (8, 0)
"""The oldest chips that it runs on."""
HALF: Final = (torch.float16, torch.bfloat16)
"""The types that it takes."""
WITHOUT_PLANS: Final = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)
"""Kernels that serve any shape at once; cuDNN builds a plan for each new one, which takes tens of
milliseconds, and the shapes of a step seldom come again.
"""


@functools.cache
def flash_attention() -> Callable[..., Tensor]:
    """Torch's attention over runs of any lengths, with grouped heads.

    Its module is imported here, as it takes a second and serves CUDA alone.
    """
    from torch.nn.attention.varlen import varlen_attn

    flash = cast("Callable[..., Tensor]", varlen_attn)
    # Since 2.13 torch groups heads only where it is asked to.
    asked = "enable_gqa" in inspect.signature(varlen_attn).parameters
    return functools.partial(flash, enable_gqa=True) if asked else flash


def takes_ragged(keys: Tensor) -> bool:
    """True if one attention call can serve runs of any shapes over such `keys [..., Dh]`.

    Flash attention does, on CUDA in half precision.
    """
    dim = keys.shape[-1]
    if not keys.is_cuda or keys.dtype not in HALF or dim > FLASH_HEADS or dim % FLASH_STEP:
        return False
    new = torch.cuda.get_device_capability(keys.device) >= FLASH_CHIPS
    return new and torch.backends.cuda.is_flash_attention_available()


def kernels(packed: Packed) -> AbstractContextManager[None]:
    """Restrict torch's choice of kernels to those that suit shapes which change with every step.

    Ragged groups leave no choice, so that a forward over such groups alone needs no context.
    """
    free = any(not isinstance(group, RaggedGroup) for group in packed.groups)
    return sdpa_kernel(list(WITHOUT_PLANS)) if packed.ids.is_cuda and free else nullcontext()


def visible_keys(spec: ModelSpec, length: int, device: torch.device) -> Tensor:
    """`[L, L]` bool: the keys that each query may see under the model's attention pattern."""
    sizes = {"full": length, "block_causal": spec.block_length, "causal": 1}
    block = torch.arange(length, device=device) // (sizes[spec.attention] or 1)
    return block[:, None] >= block


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
        sizes = (self.batch, -1)
        q, k, v = (x.unflatten(0, sizes).transpose(1, 2) for x in (q, k, v))  # [B, h, L, Dh]
        return _heads_last(scaled_attention(q, k, v, self.mask))


class PackedAttend:
    """Attention through the paged store.

    Stores the keys and values of the writing queries, then lets every group of segments read its
    slots.
    """

    def __init__(self, packed: Packed, kv: KVStore) -> None:
        self.packed, self.kv = packed, kv

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `Attend`."""
        written = self.packed.write_slots.shape[0]
        self.kv.write(layer, self.packed.write_slots, k[:written], v[:written])
        parts = []
        for group in self.packed.groups:
            span = slice(group.start, group.end)
            keys, values = self.kv.read(layer, group.key_slots)  # [(G,) K, Hkv, Dh]
            if isinstance(group, RaggedGroup):
                parts.append(ragged_attention(q[span], keys, values, group))
                continue
            if group.own:
                keys = torch.cat((keys, k[None, span]), dim=1)
                values = torch.cat((values, v[None, span]), dim=1)
            queries = q[span].unflatten(0, (keys.shape[0], -1))  # [G, q, H, Dh]
            mixed = scaled_attention(
                queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), group.mask
            )
            parts.append(_heads_last(mixed))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def ragged_attention(q: Tensor, k: Tensor, v: Tensor, group: RaggedGroup) -> Tensor:
    """`q [T, H, Dh]`, `k, v [K, Hkv, Dh]`, cut into runs by the group -> `[T, H * Dh]`.

    One call where flash attention serves the device, else one for each run.
    """
    if takes_ragged(k):
        cuts, most = (group.query_cuts, group.key_cuts), (group.most_queries, group.most_keys)
        return flash_attention()(q, k, v, *cuts, *most).flatten(1)
    queries, keys = (cuts.diff().tolist() for cuts in (group.query_cuts, group.key_cuts))
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))  # [1, h, T or K, Dh]
    runs = zip(q.split(queries, 2), k.split(keys, 2), v.split(keys, 2), strict=True)
    return _heads_last(torch.cat([scaled_attention(*run, None) for run in runs], dim=2))


def scaled_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """`q [B, H, Q, Dh]`, `k, v [B, Hkv, K, Dh]`, boolean `mask` or None -> `[B, H, Q, Dh]`."""
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)


def _heads_last(x: Tensor) -> Tensor:
    """`[B, H, Q, Dh]` -> `[B * Q, H * Dh]`."""
    return x.transpose(1, 2).flatten(2).flatten(0, 1)
