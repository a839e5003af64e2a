"""Cache policies as settings, beside computing everything in each step."""

from __future__ import annotations

from typing import Final

from dlm.evals.settings import Setting

FULL: Final = (
    "none",
    "prefix",
    "dual",
    "dual(every=4)",
    "dual(frozen_prompt=True)",
    "dual(frozen_prompt=64)",
    "vicinity",
    "freecache('prompt')",
    "freecache('block', block=8)",
    "freecache('token')",
    "freecache('window', window=32)",
    "delayed",
    "delayed_blocks",
)
"""Policies of models with full attention; their blocks are `BLOCKS`."""
BLOCKS: Final = "fixed(32)"
BLOCK_CAUSAL: Final = ("none", "block_causal")
"""Policies of block-causal models, whose blocks are the trained ones."""


def cache_settings(attention: str, unmask: str) -> list[Setting]:
    """Every policy that suits a model's attention under one rule, `none` first."""
    if attention == "block_causal":
        return [Setting(cache, {"unmask": unmask, "cache": cache}) for cache in BLOCK_CAUSAL]
    return [Setting(cache, {"unmask": unmask, "cache": cache, "blocks": BLOCKS}) for cache in FULL]
