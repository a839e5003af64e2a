import pytest
import torch

from dlm.errors import InvalidRequest
from dlm.model.config_reader import checkpoint_map, read_spec
from dlm.model.decoder import Decoder
from dlm.model.families import FAMILIES
from dlm.model.spec import MoESpec
from dlm.model.weight_map import canonical, weight_map
from tests.model.published import (
    DREAM_7B,
    LLADA2_MINI,
    LLADA_8B,
    LLADA_MOE_7B,
    QWEN3_06B,
    QWEN3_30B,
    SDAR_4B,
)


def shape(spec):
    return (
        spec.hidden_size,
        spec.layers,
        spec.heads,
        spec.kv_heads,
        spec.head_dim,
        spec.intermediate_size,
        spec.vocab_size,
    )


def test_llada_8b():
    spec = read_spec(LLADA_8B)
    assert shape(spec) == (4096, 32, 32, 32, 128, 12288, 126464)
    assert (spec.rope_theta, spec.norm_eps, spec.max_length) == (500000.0, 1e-5, 4096)
    assert (spec.attention, spec.shift, spec.block_length) == ("full", False, None)
    assert (spec.mask_id, spec.eos_ids, spec.pad_id) == (126336, (126081, 126348), 126081)
    assert (spec.qk_norm, spec.qkv_bias, spec.tied_head, spec.moe) == (False, False, False, None)
    assert spec.rotary_dim is None


def test_dream_7b():
    spec = read_spec(DREAM_7B, {"eos_token_id": 151643})
    assert shape(spec) == (3584, 28, 28, 4, 128, 18944, 152064)
    assert (spec.attention, spec.shift, spec.qkv_bias, spec.qk_norm) == ("full", True, True, False)
    assert (spec.mask_id, spec.eos_ids) == (151666, (151643, 151645))


def test_sdar_4b():
    spec = read_spec(SDAR_4B, {"eos_token_id": [151645, 151643]})
    assert shape(spec) == (2560, 36, 32, 8, 128, 9728, 151936)
    assert (spec.attention, spec.block_length, spec.shift) == ("block_causal", 4, False)
    assert (spec.qk_norm, spec.qkv_bias, spec.rope_theta) == (True, False, 1e6)
    assert (spec.mask_id, spec.eos_ids) == (151669, (151643, 151645))


def test_llada2_mini():
    spec = read_spec(LLADA2_MINI, tokens={"<|mask|>": 156895})
    assert shape(spec) == (2048, 20, 16, 4, 128, 5120, 157184)
    assert (spec.rotary_dim, spec.block_length, spec.attention) == (64, 32, "block_causal")
    assert (spec.mask_id, spec.eos_ids) == (156895, (156892,))
    assert spec.moe == MoESpec(
        experts=256,
        per_token=8,
        intermediate_size=512,
        score="sigmoid",
        scale=2.5,
        groups=8,
        groups_kept=4,
        shared_experts=1,
        selection_bias=True,
        first_moe_layer=1,
    )


def test_llada_moe_is_not_renormalised():
    spec = read_spec(LLADA_MOE_7B)
    assert shape(spec) == (2048, 16, 16, 16, 128, 8192, 157184)
    assert spec.moe == MoESpec(64, 8, 1024, normalize=False)
    assert (spec.qk_norm, spec.mask_id, spec.eos_ids) == (True, 156895, (156892,))
    later = read_spec(LLADA_MOE_7B | {"moe_layer_freq": [0, 0] + [1] * 14})
    assert later.moe == MoESpec(64, 8, 1024, normalize=False, first_moe_layer=2)


def test_moe_relatives_of_qwen3():
    rnd1 = read_spec(QWEN3_30B | {"model_type": "rnd1", "eos_token_id": 151645})
    assert (rnd1.attention, rnd1.shift, rnd1.block_length) == ("full", True, None)
    assert rnd1.eos_ids == (151645,)
    sdar = read_spec(QWEN3_30B | {"model_type": "sdar_moe"})
    assert (sdar.attention, sdar.shift, sdar.block_length) == ("block_causal", False, 4)
    assert rnd1.moe == sdar.moe == MoESpec(128, 8, 768, normalize=True)


def test_adapted_and_plain_autoregressive_models():
    tokens = {"<|mask|>": 151669}
    a2d = read_spec(QWEN3_06B | {"model_type": "a2d-qwen3"}, tokens=tokens)
    assert (a2d.attention, a2d.shift, a2d.mask_id, a2d.tied_head) == ("full", False, 151669, True)
    assert (a2d.rope_theta, a2d.eos_ids) == (1e6, (151645,))
    plain = read_spec(QWEN3_06B | {"model_type": "qwen3"}, tokens=tokens)
    assert (plain.attention, plain.mask_id) == ("causal", None)
    blocks = {"attention": "block_causal", "block_length": 32}
    bd3lm = read_spec(QWEN3_06B | {"model_type": "a2d-qwen3"}, tokens=tokens, overrides=blocks)
    assert (bd3lm.attention, bd3lm.block_length) == ("block_causal", 32)


def test_what_a_file_gets_wrong_can_be_corrected():
    corrections = {
        "mask_id": 5,
        "eos_ids": [7, 9],
        "shift": False,
        "bos_id": 1,
        "pad_id": 0,
        "max_length": 2048,
    }
    spec = read_spec(DREAM_7B, overrides=corrections)
    assert (spec.mask_id, spec.eos_ids, spec.shift) == (5, (7, 9), False)
    assert (spec.bos_id, spec.pad_id, spec.max_length) == (1, 0, 2048)
    renamed = read_spec(QWEN3_06B, overrides={"family": "a2d-qwen3", "mask_id": 5})
    assert (renamed.family, renamed.mask_id) == ("a2d-qwen3", 5)
    single = read_spec(DREAM_7B, overrides={"eos_ids": 7})
    assert single.eos_ids == (7,)


def test_published_ids_count_only_where_the_vocabulary_has_them():
    small = read_spec(LLADA2_MINI | {"vocab_size": 512, "pad_token_id": 1})
    assert (small.mask_id, small.eos_ids) == (None, ())
    unclear = read_spec(QWEN3_06B | {"model_type": "a2d-qwen3"}, tokens={"<M>": 9, "[MASK]": 8})
    assert unclear.mask_id is None


REFUSED = [
    (LLADA_8B, {"alibi": True}, "`alibi` must be False (nothing else is supported), got True"),
    (LLADA_8B, {"activation_type": "gelu"}, "`activation_type` must be 'silu'"),
    (LLADA_8B, {"attention_layer_norm": True}, "`attention_layer_norm` must be False"),
    (LLADA_8B, {"input_emb_norm": True}, "`input_emb_norm` must be False"),
    (LLADA_8B, {"scale_logits": True}, "`scale_logits` must be False"),
    (LLADA_8B, {"layer_norm_type": "low_precision"}, "`layer_norm_type` must be 'rms'"),
    (LLADA_8B, {"block_type": "sequential"}, "`block_type` must be 'llama'"),
    (LLADA_8B, {"rope": False}, "`rope` must be True"),
    (DREAM_7B, {"hidden_act": "gelu"}, "`hidden_act` must be 'silu' (nothing else"),
    (DREAM_7B, {"use_sliding_window": True}, "sliding-window attention is not supported"),
    (DREAM_7B, {"use_sliding_window": None, "sliding_window": 4096}, "`sliding_window` 4096"),
    (DREAM_7B, {"layer_types": ["sliding_attention"]}, "`layer_types` must be 'full_attention'"),
    (DREAM_7B, {"logits_scaling": 8.0}, "`logits_scaling` must be None or 1"),
    (SDAR_4B, {"final_logit_softcapping": 30.0}, "`final_logit_softcapping` must be None"),
    (SDAR_4B, {"layer_norm_eps": 1e-5}, "`layer_norm_eps` must be None"),
    (SDAR_4B, {"attention_bias": True}, "`attention_bias` must be False or None"),
    (SDAR_4B, {"quantization_config": {"bits": 4}}, "`quantization_config` must be None"),
    (SDAR_4B, {"block_size": "4"}, "`block_size` must be a positive integer, got '4'"),
    (SDAR_4B, {"rope_theta": -1}, "`rope_theta` must be a positive number, got -1"),
    (SDAR_4B, {"tie_word_embeddings": "no"}, "`tie_word_embeddings` must be true or false"),
    (LLADA2_MINI, {"expert_capacity": 48}, "`expert_capacity` must be None (nothing else"),
    (LLADA2_MINI, {"score_function": "softmax"}, "`score_function` must be 'sigmoid'"),
    (LLADA2_MINI, {"norm_topk_prob": False}, "`norm_topk_prob` must be True"),
    (LLADA_MOE_7B, {"shared_expert_intermediate_size": 8}, "`shared_expert_intermediate_size`"),
    (LLADA_MOE_7B, {"moe_router_enable_expert_bias": True}, "`moe_router_enable_expert_bias`"),
    (LLADA_MOE_7B, {"moe_layer_freq": [1, 0] * 8}, "`moe_layer_freq` must be zeros, then ones"),
    (QWEN3_30B, {"model_type": "rnd1", "mlp_only_layers": [0]}, "`mlp_only_layers` must be []"),
    (LLADA_8B, {"d_model": 4097}, "`d_model` must be a multiple of the 32 heads, got 4097"),
    (SDAR_4B, {"num_key_value_heads": 5}, "`num_attention_heads` must be a multiple of the 5"),
    (SDAR_4B, {"mask_token_id": [7]}, "`mask_token_id` must be null or a token id, got [7]"),
    (SDAR_4B, {"rms_norm_eps": float("nan")}, "`rms_norm_eps` must be a positive number, got nan"),
    (SDAR_4B, {"num_hidden_layers": 10**12}, "`num_hidden_layers` must be a positive integer"),
    (SDAR_4B, {"text_config": {}}, "`text_config` must be absent"),
    (LLADA_8B, {"d_model": None}, "family 'llada' lacks the field `d_model`"),
    (DREAM_7B, {"rms_norm_eps": None}, "family 'Dream' lacks the field `rms_norm_eps`"),
    (
        DREAM_7B,
        {"mask_token_id": 152064},
        "config.json: `mask_token_id` must be in 0..152063, got 152064; correct it with "
        "overrides={'mask_id': ...}",
    ),
    (
        LLADA_MOE_7B,
        {"mask_token_id": 156892},
        "`mask_token_id` must be none of the end ids (156892,), got 156892; correct it",
    ),
    (SDAR_4B, {"model_type": "gpt2"}, "must be one of 'Dream', 'Fast_dLLM_Qwen', 'a2d-llama'"),
    (SDAR_4B, {"model_type": "dream"}, "config.json: `model_type` must be one of 'Dream'"),
    (SDAR_4B, {"model_type": "lada"}, "got 'lada'; did you mean 'llada'?"),
    (SDAR_4B, {"model_type": None}, "config.json lacks the field `model_type`"),
]


@pytest.mark.parametrize(("config", "change", "text"), REFUSED, ids=[text for *_, text in REFUSED])
def test_what_the_decoder_does_not_have_is_refused(config, change, text):
    with pytest.raises(InvalidRequest) as refusal:
        read_spec({"model_type": "a2d-qwen3"} | config | change)
    assert refusal.value.param == "model"
    assert text in refusal.value.message


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"mask": 5}, "must be one of 'attention', 'block_length', 'bos_id'"),
        ({"attention": "windowed"}, "('full', 'block_causal', 'causal'), got 'windowed'"),
        ({"attention": "block_causal"}, "`block_length` must be given for a block-causal model"),
        ({"block_length": 0}, "`block_length` must be a positive integer or None, got 0"),
        ({"rope_theta": "big"}, "`rope_theta` must be a positive number, got 'big'"),
        ({"shift": "yes"}, "`shift` must be True or False, got 'yes'"),
        ({"eos_ids": [1, 999999]}, "`eos_ids` must be in 0..152063, got 999999"),
        ({"family": "gpt2"}, "must be one of 'Dream'"),
    ],
)
def test_wrong_corrections_are_refused(overrides, text):
    with pytest.raises(InvalidRequest) as refusal:
        read_spec(DREAM_7B, overrides=overrides)
    assert text in refusal.value.message


TINY_HF = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "expert_intermediate_size": 8,
    "dense_intermediate_size": 24,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1,
    "num_shared_experts": 1,
    "first_k_dense_replace": 1,
}
TINY_LLADA = {
    "vocab_size": 32,
    "d_model": 16,
    "mlp_hidden_size": 24,
    "n_layers": 2,
    "n_heads": 4,
    "max_sequence_length": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}
EXCEPTIONS = {"llada_moe": {"norm_topk_prob": None}, "llada": TINY_LLADA}


@pytest.mark.parametrize("tied", [False, True], ids=["head", "tied"])
@pytest.mark.parametrize("stacked", [False, True], ids=["per-expert", "stacked"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_is_covered_exactly_once(family, stacked, tied):
    config = TINY_HF | EXCEPTIONS.get(family, {}) | {"model_type": family}
    spec = read_spec(config, overrides={"tied_head": tied})
    decoder = Decoder(spec).requires_grad_(False)
    for parameter in decoder.parameters():
        parameter.zero_()
    for place in weight_map(spec, FAMILIES[family].names, stacked=stacked).values():
        target = decoder.get_parameter(place.parameter)
        target[place.part or ...] += 1
    for name, parameter in decoder.named_parameters():
        assert torch.equal(parameter, torch.ones_like(parameter)), name


def test_wrapper_names_and_variants_of_llada2():
    assert canonical("model.language_model.layers.1.mlp.gate.weight") == (
        "model.layers.1.mlp.gate.weight"
    )
    assert canonical("model.lm_head.weight") == "lm_head.weight"
    config = TINY_HF | {"model_type": "llada2_moe", "norm_head": True}
    spec = read_spec(config)
    plain = checkpoint_map(spec, config, ["model.layers.1.mlp.experts.0.up_proj.weight"])
    assert plain["lm_head.weight"].unit_columns
    assert "model.layers.1.mlp.experts.3.up_proj.weight" in plain
    stacked = checkpoint_map(spec, config, ["model.layers.1.mlp.experts.up_proj"])
    assert "model.layers.1.mlp.experts.up_proj" in stacked


def read_or_refused(*files):
    """The spec, or the refusal; any other error passes through."""
    try:
        return read_spec(*files)
    except InvalidRequest as refusal:
        return refusal


WRONG = ["x", -1, 0, 1.5, [], [[2], [0]], {}, {"a": 1}, True, None, float("nan"), 10**30]


@pytest.mark.parametrize(
    "config",
    [LLADA_8B, DREAM_7B, SDAR_4B, LLADA2_MINI, LLADA_MOE_7B, QWEN3_30B | {"model_type": "rnd1"}],
    ids=lambda config: config["model_type"],
)
def test_any_wrong_value_of_a_field_is_read_or_refused_by_name(config):
    """Of each field a family reads, and of some that its files lack: never another error."""
    more = ("rope_parameters", "rope_scaling", "layer_types", "text_config", "bos_token_id")
    for name in (*config, *more, "mlp_ratio", "head_dim", "partial_rotary_factor"):
        for value in WRONG:
            found = read_or_refused(config | {name: value})
            assert not isinstance(found, InvalidRequest) or found.param == "model"
    for value in WRONG:
        found = read_or_refused(config, {"eos_token_id": value})
        if isinstance(found, InvalidRequest):
            assert "eos" in found.message
        else:
            assert all(type(token) is int for token in found.eos_ids)


@pytest.mark.parametrize(
    ("generation", "text"),
    [
        ([[2], [0]], "generation_config.json: `eos_token_id` must be null, a token id or a list"),
        ({"a": 1}, "generation_config.json: `eos_token_id` must be null, a token id or a list"),
        ("2", "got '2'"),
        ([2.0], "got [2.0]"),
        ([True], "got [True]"),
        ([999999], "generation_config.json: `eos_token_id` must be in 0..151935, got 999999"),
    ],
)
def test_wrong_end_ids_are_refused(generation, text):
    with pytest.raises(InvalidRequest) as refusal:
        read_spec(SDAR_4B, {"eos_token_id": generation})
    assert text in refusal.value.message
