"""Tiny models with random weights, and the recorded parity fixtures."""

import json
import re
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dlm.model.decoder import Decoder
from dlm.model.spec import ModelSpec

PARITY = Path(__file__).parent / "data" / "parity"
DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.gpu))


def tiny_spec(**changes: Any) -> ModelSpec:
    """Two layers, vocabulary 64, full attention; ids: pad 0, eos 1, bos 2, mask the last one."""
    sizes: dict[str, Any] = {
        "family": "llada",
        "vocab_size": 64,
        "hidden_size": 32,
        "layers": 2,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 8,
        "intermediate_size": 64,
        "max_length": 1024,
        "eos_ids": (1,),
        "bos_id": 2,
        "pad_id": 0,
    } | changes
    return ModelSpec(**{"mask_id": sizes["vocab_size"] - 1} | sizes)


def random_decoder(spec: ModelSpec, seed: int = 0) -> Decoder:
    """A float32 decoder with seeded weights, made to be lively.

    Attention is sharp and strong, so that masks at different positions predict different tokens;
    the head gives logits of standard deviation 3, so confidences lie between 0.1 and 1.
    """
    decoder = Decoder(spec)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in decoder.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            value = (1 + 0.1 * noise) * (3 if "q_norm" in name else 1)
        elif parameter.ndim == 1:
            value = 0.1 * noise
        else:
            strong = name.startswith(("embedding", "head")) or "attention" in name
            value = noise * parameter.shape[-1] ** -0.5 * (3 if strong else 1)
        with torch.no_grad():
            parameter.copy_(value)
    return decoder.requires_grad_(False).eval()


def noised(folder: Path, share: float, seed: int) -> Path:
    """The checkpoint in `folder` after normal noise was added to its weights: for each tensor this
    share of its own standard deviation.
    """
    generator = torch.Generator().manual_seed(seed)
    for path in sorted(folder.glob("*.safetensors")):
        weights = load_file(path)
        for name in sorted(weights):
            own = weights[name].float()
            noise = torch.randn(own.shape, generator=generator)
            weights[name] = (own + share * own.std() * noise).to(weights[name].dtype)
        save_file(weights, path, {"format": "pt"})
    return folder


def parity(case: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Manifest and tensors (ids as int64) of one recorded case, such as "sdar/static_b4_s4"."""
    manifest = json.loads((PARITY / case / "manifest.json").read_text())
    tensors = load_file(PARITY / case / "data.safetensors")
    return manifest, {k: v.long() if v.dtype == torch.int32 else v for k, v in tensors.items()}


def block_mask(length: int, block: int) -> Tensor:
    """Block-causal mask `[L, L]`, True where a query (row) may look; block 1 is causal."""
    index = torch.arange(length) // block
    return index[:, None] >= index[None, :]


def logits(decoder: Decoder, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Raw logits `[B, L, V]` of a plain batch, computed where the decoder is."""
    device = decoder.embedding.weight.device
    if device.type == "meta":  # its weights are fetched as its layers run
        device = torch.device("cpu")
    with torch.no_grad():
        hidden = decoder.dense(ids.to(device), None if mask is None else mask.to(device))
        out: Tensor = decoder.head(hidden).cpu()
    return out


def leave_out_built_in_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep lm-evaluation-harness from reading the thousands of task files it comes with.

    Each of its task managers takes seconds for them.
    """
    manager = pytest.importorskip("lm_eval.tasks").TaskManager
    without = partialmethod(manager.__init__, include_defaults=False)
    monkeypatch.setattr(manager, "__init__", without)


def false_equations(text: str) -> list[str]:
    """The equations of two whole numbers in a text, such as "2+15=21", that do not hold."""
    found = re.finditer(r"(?<![\d+*=-])(\d+)([-+*])(\d+)=(\d+)(?!\d)", text)
    signs = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
    return [m[0] for m in found if signs[m[2]](int(m[1]), int(m[3])) != int(m[4])]
