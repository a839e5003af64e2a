"""The bundled checkpoints: one body in three shapes, each with the objective it is trained for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from bundled_data import BOS, EOS, MASK, PAD

from dlm.model.spec import ModelSpec

BLOCK: Final = 8
FULL: Final = ModelSpec(
    family="llada",
    vocab_size=1024,
    hidden_size=128,
    layers=6,
    heads=4,
    kv_heads=4,
    head_dim=32,
    intermediate_size=384,
    max_length=1024,
    rope_theta=10_000.0,
    norm_eps=1e-5,
    tied_head=True,
    mask_id=MASK,
    eos_ids=(EOS,),
    bos_id=BOS,
    pad_id=PAD,
)
SHAPES: Final[Mapping[str, ModelSpec]] = MappingProxyType(
    {
        "tiny": FULL,
        "tiny-block": replace(
            FULL, family="sdar", attention="block_causal", block_length=BLOCK, qk_norm=True
        ),
        "tiny-ar": replace(FULL, family="llama", attention="causal", layers=3, mask_id=None),
    }
)
