"""Fast-dLLM v2 (arXiv 2509.26328): its logits and its decoding, as its public code has them.

Recorded from `modeling.py` of the published checkpoints (transformers 4.52.4) on a tiny random one:
logits of the plain forward, and for each prompt what every forward of `generate` committed.
"""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import dlm
from dlm.evals.verify import verify
from dlm.model.config_reader import read_spec
from dlm.model.loading import load_model
from tests.helpers import PARITY, block_mask, logits

FOLDER = PARITY / "models" / "fast_dllm_v2"
RECORDED = json.loads((PARITY / "fast_dllm_v2" / "cases.json").read_text())
CASES = RECORDED["cases"]
MASK = {"mask_id": 158}
# The architecture fields of Efficient-Large-Model/Fast_dLLM_v2_1.5B.
PUBLISHED = {
    "architectures": ["Fast_dLLM_QwenForCausalLM"],
    "model_type": "Fast_dLLM_Qwen",
    "attention_dropout": 0.0,
    "bd_size": 32,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


@pytest.fixture(scope="module")
def engine():
    return dlm.load(FOLDER, device="cpu", overrides=MASK)


def test_the_published_file_is_read():
    spec = read_spec(PUBLISHED, {"eos_token_id": [151645, 151643]}, {"|<MASK>|": 151665})
    assert (spec.family, spec.attention, spec.block_length) == (
        "Fast_dLLM_Qwen",
        "block_causal",
        32,
    )
    assert (spec.shift, spec.qkv_bias, spec.qk_norm, spec.tied_head) == (True, True, False, True)
    assert (spec.mask_id, spec.eos_ids) == (151665, (151645, 151643))
    assert read_spec(PUBLISHED).mask_id == 151665
    assert read_spec(PUBLISHED | {"bd_size": 16}).block_length == 16
    assert read_spec(PUBLISHED | {"model_type": None}).family == "Fast_dLLM_Qwen"


def test_logits_are_those_of_its_code(engine):
    recorded = load_file(PARITY / "fast_dllm_v2" / "logits.safetensors")
    ids, theirs, where = recorded["ids"].long(), recorded["logits"], RECORDED["where"]
    raw = logits(load_model(FOLDER, overrides=MASK), ids, block_mask(ids.shape[1], 32))
    spread = theirs.max() - theirs.min()
    assert (raw[:, where] - theirs).abs().max() < 1e-5 * spread
    shifted = engine.logits(ids)[:, [at + 1 for at in where]]
    assert (shifted - theirs).abs().max() < 1e-5 * spread


@pytest.mark.parametrize("number", range(len(CASES)))
def test_every_forward_commits_what_its_code_commits(engine, number):
    case = CASES[number]
    answer = engine.generate(
        case["prompt"],
        max_new_tokens=case["new_tokens"],
        unmask=f"threshold({case['threshold']})",
        blocks=f"sub_blocks(sub={case['small']}, first_alone=True)",
        stop="none",
        trace=True,
    )
    found = [
        sorted(zip(event.pos, event.ids, strict=True))
        for event in answer.trace
        if event.type == "commit"
    ]
    assert found == [sorted(zip(*group, strict=True)) for group in case["commits"]]
    # the forward that stores a block, and the prompt's, are part of the next block's first step
    assert answer.stats.nfe == len(case["commits"]) <= case["forwards"]


def test_a_batch_decodes_as_its_rows_alone(engine):
    options = {"max_new_tokens": 40, "blocks": "sub_blocks(first_alone=True)", "stop": "none"}
    prompts = [case["prompt"] for case in CASES[:6]]
    together = engine.generate(prompts, **options)
    assert [a.canvas for a in together] == [engine.generate(p, **options).canvas for p in prompts]


def test_the_exact_cache_equals_none(engine):
    options = {"max_new_tokens": 70, "blocks": "sub_blocks(first_alone=True)", "stop": "none"}
    for case in CASES[3:6]:
        with_cache, without = (
            engine.generate(case["prompt"], **options, cache=cache).canvas
            for cache in ("block_causal", "none")
        )
        assert with_cache == without


def test_the_plain_rule_differs_where_a_block_opens(engine):
    case = CASES[5]
    options = {"max_new_tokens": case["new_tokens"], "unmask": "threshold(0.9)", "trace": True}
    plain = engine.generate(case["prompt"], **options, blocks="sub_blocks(sub=8)", stop="none")
    first = next(event for event in plain.trace if event.type == "commit")
    assert case["commits"][0][0] == [len(case["prompt"])]
    assert list(first.pos) != case["commits"][0][0]


def test_the_body_is_that_of_transformers(tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "v2")
    found = {check.name: check for check in verify(folder, device="cpu", overrides=MASK)}
    assert found["transformers"].status == "ok"
    assert found["transformers"].detail.startswith("Qwen2")
    assert found["paged forward"].status == "ok"
    assert torch.isfinite(dlm.load(folder, device="cpu", overrides=MASK).logits([[5, 6]])).all()
