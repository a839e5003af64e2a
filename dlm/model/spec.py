"""`ModelSpec`: everything the decoder must know about a checkpoint, in one frozen table.

Families fill it from their `config.json` (`families.py`); its traits travel on to the decoding side
as `ModelInfo`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dlm.model.rotary import RotaryScaling

Attention = Literal["full", "block_causal", "causal"]


@dataclass(frozen=True, slots=True)
class MoESpec:
    """A mixture-of-experts feed-forward: router, experts, shared experts.

    `groups`, `groups_kept`: expert groups and the number of them that are selected first
    (DeepSeek-V3 style, used by LLaDA2); 1, 1 switches it off.
    """

    experts: int
    per_token: int
    intermediate_size: int
    score: Literal["softmax", "sigmoid"] = "softmax"
    normalize: bool = True
    scale: float = 1.0
    groups: int = 1
    groups_kept: int = 1
    shared_experts: int = 0
    selection_bias: bool = False
    first_moe_layer: int = 0


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Sizes and traits of one decoder checkpoint."""

    # sizes
    family: str
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    max_length: int
    # rotary positions: base, leading dims of a head that turn (None: all), scaled frequencies
    rope_theta: float = 10_000.0
    rotary_dim: int | None = None
    rotary_scaling: RotaryScaling | None = None
    # layers
    norm_eps: float = 1e-6
    qk_norm: bool = False
    qkv_bias: bool = False
    tied_head: bool = False
    moe: MoESpec | None = None
    # training: the attention pattern, its block, and if raw row i predicts position i + 1
    attention: Attention = "full"
    block_length: int | None = None
    shift: bool = False
    # special ids
    mask_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    bos_id: int | None = None
    pad_id: int | None = None

    @property
    def angles_by_length(self) -> bool:
        """True if rotary angles depend on the length of the canvas, not on positions alone."""
        return self.rotary_scaling is not None and self.rotary_scaling.by_length

    def kv_bytes_per_token(self, element_size: int) -> int:
        """Bytes of keys and values that one position costs over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * element_size

    def is_moe(self, layer: int) -> bool:
        """True if `layer` has experts instead of a dense feed-forward."""
        return self.moe is not None and layer >= self.moe.first_moe_layer
