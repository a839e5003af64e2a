"""One row a family: how its `config.json` and its tensors are to be read.

A row names the traits that the file lacks (attention pattern, shift, published special ids); the
fields that the file has are read under their real names (`config_reader.py`). The `FIXED`
tables hold the traits that the decoder does not have: such a field is refused unless it has the
value that makes no difference, never ignored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dlm.model.hf_config import Fields
from dlm.model.spec import Attention, MoESpec
from dlm.model.weight_map import HF_NAMES, LLADA2_NAMES, LLADA_NAMES, WeightNames

# The only values with which a field leaves the decoder as it is; an absent field is fine.
HF_FIXED: Final[Mapping[str, tuple[Any, ...]]] = {
    "hidden_act": ("silu",),
    **dict.fromkeys(("attention_bias", "mlp_bias", "use_bias"), (False, None)),
    "mlp_only_layers": ([], None),
    "decoder_sparse_step": (1,),
    "score_function": ("sigmoid",),
    "moe_router_score_function": ("softmax",),
    "shared_expert_intermediate_size": (None, 0),
    "router_num_group": (None, 0, 1),
    **dict.fromkeys(("clip_qkv", "expert_capacity", "quantization_config"), (None,)),
    **dict.fromkeys(("layer_norm_eps", "attention_multiplier", "attention_chunk_size"), (None,)),
    **dict.fromkeys(("final_logit_softcapping", "attn_logit_softcapping"), (None,)),
    "query_pre_attn_scalar": (None,),
    **dict.fromkeys(("logits_scaling", "logit_scale"), (None, 1, 1.0)),
    **dict.fromkeys(("embedding_multiplier", "residual_multiplier"), (None, 1, 1.0)),
    **dict.fromkeys(("attention_sink", "rope_interleave", "rope_interleaved"), (None, False)),
    "no_rope_layers": (None, []),
}
LLADA_FIXED: Final[Mapping[str, tuple[Any, ...]]] = {
    "activation_type": ("silu",),
    "block_type": ("llama",),
    "block_group_size": (1,),
    "layer_norm_type": ("rms",),
    **dict.fromkeys(("rope", "rope_full_precision", "layer_norm_with_affine"), (True,)),
    **dict.fromkeys(("alibi", "attention_layer_norm", "input_emb_norm"), (False,)),
    **dict.fromkeys(("scale_logits", "include_bias"), (False,)),
    "bias_for_layer_norm": (False, None),
    **dict.fromkeys(("clip_qkv", "quantization_config"), (None,)),
}
LLADA_FIELDS: Final[Mapping[str, str]] = {
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "intermediate_size": "mlp_hidden_size",
    "max_position_embeddings": "max_sequence_length",
    "tie_word_embeddings": "weight_tying",
    "use_qkv_bias": "include_qkv_bias",
}


@dataclass(frozen=True, slots=True)
class Family:
    """One row: key names, field names, traits.

    `block`: the field of its length and the default of that.
    `head_dim`, `tied_head`: the meaning of an absent field (None: width / heads).
    `architecture`: the name of the family's class in its files.
    `rotary_fraction`: the part of each head that turns where no field says it (None: all, always).
    """

    names: WeightNames = HF_NAMES
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=lambda: HF_FIXED)
    attention: Attention = "full"
    block: tuple[str, int] | None = None
    shift: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    head_dim: int | None = None
    tied_head: bool = False
    rotary_fraction: float | None = None
    moe: Callable[[Fields], MoESpec] | None = None
    mask_id: int | None = None
    stop_ids: tuple[int, ...] = ()
    architecture: str = ""


def _qwen3_moe(fields: Fields) -> MoESpec:
    """Softmax over all experts, then the top k; `norm_topk_prob` has no safe default."""
    return MoESpec(
        experts=fields.size("num_experts", fields.count("num_local_experts")),
        per_token=fields.size("num_experts_per_tok"),
        intermediate_size=fields.size("moe_intermediate_size"),
        normalize=fields.flag("norm_topk_prob"),
    )


def _llada_moe(fields: Fields) -> MoESpec:
    """Softmax routing whose weights are never renormalised (hard coded in the reference model)."""
    fields.fixed("norm_topk_prob", False, None)
    fields.fixed("moe_router_enable_expert_bias", False)
    fields.fixed("routed_scaling_factor", 1, 1.0)
    layers = fields.size("num_hidden_layers")
    frequency = fields.numbers("moe_layer_freq", [1] * layers)
    dense = frequency.index(1) if 1 in frequency else layers
    if frequency != [0] * dense + [1] * (layers - dense):
        raise fields.wrong("moe_layer_freq", "zeros, then ones, one number a layer", frequency)
    return MoESpec(
        experts=fields.size("num_experts"),
        per_token=fields.size("num_experts_per_tok"),
        intermediate_size=fields.size("expert_intermediate_size"),
        normalize=False,
        first_moe_layer=dense,
    )


def _llada2_moe(fields: Fields) -> MoESpec:
    """Sigmoid scores, selection bias, groups, scale; a single expert a token is not normalised."""
    fields.fixed("norm_topk_prob", True)
    per_token = fields.size("num_experts_per_tok")
    return MoESpec(
        experts=fields.size("num_experts"),
        per_token=per_token,
        intermediate_size=fields.size("moe_intermediate_size"),
        score="sigmoid",
        normalize=per_token > 1,
        scale=fields.number("routed_scaling_factor"),
        groups=fields.size("n_group", 1),
        groups_kept=fields.size("topk_group", 1),
        shared_experts=fields.count("num_shared_experts"),
        selection_bias=fields.flag("moe_router_enable_expert_bias", True),
        first_moe_layer=fields.count("first_k_dense_replace"),
    )


FAMILIES: Final[Mapping[str, Family]] = {
    "llada": Family(
        names=LLADA_NAMES,
        fields=LLADA_FIELDS,
        fixed=LLADA_FIXED,
        architecture="LLaDAModelLM",
        tied_head=True,
        mask_id=126336,
        stop_ids=(126081, 126348),
    ),
    "llada_moe": Family(
        architecture="LLaDAMoEModelLM",
        fields={"intermediate_size": "dense_intermediate_size", "use_qk_norm": "qk_layernorm"},
        qk_norm=True,
        rotary_fraction=1.0,
        moe=_llada_moe,
        mask_id=156895,
        stop_ids=(156892,),
    ),
    "llada2_moe": Family(
        architecture="LLaDA2MoeModelLM",
        names=LLADA2_NAMES,
        attention="block_causal",
        block=("block_size", 32),
        qk_norm=True,
        rotary_fraction=0.5,
        moe=_llada2_moe,
        mask_id=156895,
        stop_ids=(156892,),
    ),
    "Dream": Family(
        architecture="DreamModel",
        shift=True,
        qkv_bias=True,
        mask_id=151666,
        stop_ids=(151643, 151645),
    ),
    "sdar": Family(
        architecture="SDARForCausalLM",
        attention="block_causal",
        block=("block_size", 4),
        qk_norm=True,
        head_dim=128,
        mask_id=151669,
        stop_ids=(151645, 151643),
    ),
    "sdar_moe": Family(
        architecture="SDARMoeForCausalLM",
        attention="block_causal",
        block=("block_size", 4),
        qk_norm=True,
        moe=_qwen3_moe,
        mask_id=151669,
        stop_ids=(151645, 151643),
    ),
    "Fast_dLLM_Qwen": Family(
        attention="block_causal",
        block=("bd_size", 32),
        shift=True,
        qkv_bias=True,
        mask_id=151665,
        stop_ids=(151645,),
        architecture="Fast_dLLM_QwenForCausalLM",
    ),
    "rnd1": Family(
        architecture="RND1LM",
        shift=True,
        qk_norm=True,
        moe=_qwen3_moe,
        mask_id=151669,
        stop_ids=(151645,),
    ),
    "a2d-llama": Family(),
    "a2d-qwen2": Family(qkv_bias=True),
    "a2d-qwen3": Family(qk_norm=True, head_dim=128),
    "llama": Family(attention="causal"),
    "qwen2": Family(attention="causal", qkv_bias=True),
    "qwen3": Family(attention="causal", qk_norm=True, head_dim=128),
    "qwen3_moe": Family(attention="causal", qk_norm=True, moe=_qwen3_moe),
}
