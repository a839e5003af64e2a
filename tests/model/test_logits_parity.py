"""The decoder against recorded logits of the families' own code, and against transformers."""

import json

import pytest
import torch
import transformers

from dlm.model.loading import load_model
from tests.helpers import PARITY, block_mask, logits, parity

LENGTH = 24
BLOCKS = {"full": LENGTH, "block8": 8, "block4": 4, "causal": 1}


def recorded_cases():
    for model in ("llada", "dream", "sdar", "llada2"):
        names = json.loads((PARITY / "logits" / model / "manifest.json").read_text())["tensors"]
        yield from ((model, name) for name in names if name.startswith("logits_"))


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Within 1e-4, or 1e-5 of the range of the logits."""
    spread = float(theirs.max() - theirs.min())
    return float((ours - theirs).abs().max()) <= max(1e-4, 1e-5 * spread)


@pytest.mark.parametrize(("model", "name"), list(recorded_cases()))
def test_recorded_logits(model, name):
    _, recorded = parity(f"logits/{model}")
    *pattern, batch = name.split("_")[1:]
    ids = recorded[f"ids_{batch}"]
    mask, valid = (
        block_mask(LENGTH, BLOCKS[pattern[0] if pattern else "full"]),
        torch.ones_like(ids),
    )
    if batch == "pad":
        valid = recorded["mask_pad"]
        mask = valid.bool()[:, None, None, :]
    ours = logits(load_model(PARITY / "models" / model), ids, mask)
    rows = valid.bool()
    assert close(ours[rows], recorded[name][rows])


SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
MOE_SIZES = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
# (class, its config, what to change in config.json so that it reads as the family)
LIBRARY = {
    "llama": ("Llama", {}, {}),
    "qwen2": ("Qwen2", {}, {}),
    "qwen3": ("Qwen3", {"head_dim": 16}, {}),
    "qwen3-tied": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}, {}),
    "a2d-llama": ("Llama", {}, {"model_type": "a2d-llama"}),
    "a2d-qwen2": ("Qwen2", {}, {"model_type": "a2d-qwen2"}),
    "a2d-qwen3": ("Qwen3", {"head_dim": 16}, {"model_type": "a2d-qwen3"}),
    "Dream": ("Qwen2", {}, {"model_type": "Dream"}),
    "sdar": ("Qwen3", {"head_dim": 16}, {"model_type": "sdar", "block_size": 4}),
    "qwen3_moe": ("Qwen3Moe", MOE_SIZES | {"norm_topk_prob": True}, {}),
    "sdar_moe": ("Qwen3Moe", MOE_SIZES | {"norm_topk_prob": True}, {"model_type": "sdar_moe"}),
    "rnd1": ("Qwen3Moe", MOE_SIZES | {"norm_topk_prob": True}, {"model_type": "rnd1"}),
    "llada_moe": (
        "Qwen3Moe",
        MOE_SIZES | {"norm_topk_prob": False},
        {
            "model_type": "llada_moe",
            "num_experts": 8,
            "expert_intermediate_size": 16,
            "dense_intermediate_size": 48,
        },
    ),
}


@pytest.fixture(scope="module")
def library_models(tmp_path_factory):
    """Checkpoints written by transformers at random init, with config.json read as a family's."""
    made = {}
    for case, (kind, extra, changes) in LIBRARY.items():
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**SIZES | extra)
        model = getattr(transformers, f"{kind}ForCausalLM")._from_config(
            config, attn_implementation="eager"
        )
        for parameter in model.parameters():  # far from the init, where errors would hide
            noise = torch.randn_like(parameter)
            parameter.data.copy_(0.3 * noise if parameter.ndim > 1 else parameter + 0.1 * noise)
        folder = tmp_path_factory.mktemp(case)
        model.eval().save_pretrained(folder)
        fields = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps(fields))
        made[case] = (folder, model)
    return made


@pytest.mark.parametrize("case", LIBRARY)
@pytest.mark.parametrize("block", [1, 4, LENGTH], ids=["causal", "block4", "full"])
def test_library_classes(library_models, case, block):
    folder, model = library_models[case]
    ids = torch.randint(0, 96, (2, LENGTH), generator=torch.Generator().manual_seed(3))
    mask = block_mask(LENGTH, block)
    # A four-dimensional mask is taken as it is: no causal mask is added to it.
    additive = torch.zeros(LENGTH, LENGTH).masked_fill(~mask, -torch.inf).expand(2, 1, -1, -1)
    with torch.no_grad():
        theirs = model(ids, attention_mask=additive).logits
        plain = model(ids).logits
    ours = logits(load_model(folder), ids, mask)
    assert close(ours, theirs)
    assert (block == 1) == close(ours, plain)
