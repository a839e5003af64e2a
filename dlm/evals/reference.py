"""transformers' own class for the body of a family: a second opinion on its logits."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

BODIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Dream": "Qwen2",
        "sdar": "Qwen3",
        "sdar_moe": "Qwen3Moe",
        "rnd1": "Qwen3Moe",
        "Fast_dLLM_Qwen": "Qwen2",
        "a2d-llama": "Llama",
        "a2d-qwen2": "Qwen2",
        "a2d-qwen3": "Qwen3",
        "llama": "Llama",
        "qwen2": "Qwen2",
        "qwen3": "Qwen3",
        "qwen3_moe": "Qwen3Moe",
    }
)
"""Families whose body, tensor names included, transformers has, under this or another name."""


def reference(
    engine: Any, folder: Path, overrides: Mapping[str, Any]
) -> Callable[[Tensor], Tensor]:
    """`ids [B, L]` -> raw logits of transformers' model, with the attention of this one's training.

    Raises what transformers raises when it cannot load the files.
    """
    import transformers

    spec, weight = engine.model.spec, engine.model.embedding.weight
    body = BODIES[spec.family]
    told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    fields = {key: told[key] for key in told if key not in ("model_type", "auto_map")}
    config = getattr(transformers, f"{body}Config").from_dict(fields)
    if "rope_theta" in overrides:
        config.rope_parameters["rope_theta"] = spec.rope_theta
    if "norm_eps" in overrides:
        config.rms_norm_eps = spec.norm_eps
    if "tied_head" in overrides:
        config.tie_word_embeddings = spec.tied_head
    model: Any = getattr(transformers, f"{body}ForCausalLM").from_pretrained(
        folder, config=config, dtype=weight.dtype
    )
    model.to(weight.device).eval()
    unit = {"causal": 1, "block_causal": spec.block_length}.get(spec.attention)

    def run(ids: Tensor) -> Tensor:
        at = torch.arange(ids.shape[1], device=ids.device)
        seen = torch.ones(len(at), len(at), dtype=torch.bool, device=ids.device)
        if unit is not None:
            block = torch.div(at, unit, rounding_mode="floor")
            seen = block[:, None] >= block[None, :]
        mask = seen[None, None].expand(len(ids), 1, -1, -1)
        found: Tensor = model(ids, attention_mask=mask, use_cache=False).logits
        return found

    return run
