"""Rotary settings: read as transformers reads them, and turned into the same angles."""

import json

import pytest
import torch
import transformers

import dlm
from dlm.engine.engine import Engine
from dlm.errors import InvalidRequest
from dlm.model.config_reader import read_spec
from dlm.model.decoder import Decoder
from dlm.model.kv_store import KVStore
from dlm.model.loading import load_model
from dlm.model.rotary import Rotary
from tests.engine.harness import info_of
from tests.helpers import logits, random_decoder, tiny_spec
from tests.model.published import DREAM_7B, LLADA2_MINI, QWEN3_06B

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 16,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LONG = {"short_factor": [1.0 + i / 8 for i in range(8)], "long_factor": [2.0 + i for i in range(8)]}
YARN = {"rope_type": "yarn", "factor": 4.0}
# What config.json says of its angles, beside the sizes.
SETTINGS = {
    "flat": {"rope_theta": 500.0},
    "absent": {},
    "table": {"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}},
    "both": {"rope_theta": 10000, "rope_parameters": {"rope_theta": 500.0}},
    "beside": {"rope_theta": 500.0, "rope_parameters": {"rope_type": "default"}},
    "nulls": {"rope_theta": 500.0, "rope_parameters": None, "rope_scaling": None},
    "empty": {"rope_theta": 500.0, "rope_scaling": {}},
    "linear": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}},
    "old linear": {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2}},
    "scaling first": {
        "rope_theta": 100.0,
        "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"},
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    },
    "both names": {
        "rope_theta": 500.0,
        "rope_scaling": {"type": "default", "rope_type": "linear", "factor": 2.0},
    },
    "dynamic": {"rope_theta": 500.0, "rope_scaling": {"rope_type": "dynamic", "factor": 4.0}},
    "llama3": {"rope_theta": 500.0, "rope_scaling": LLAMA3},
    "new llama3": {"rope_parameters": LLAMA3 | {"rope_theta": 500.0}},
    "yarn": {"rope_parameters": YARN | {"rope_theta": 500.0}},
    "yarn, all": {
        "rope_theta": 500.0,
        "max_position_embeddings": 64,
        "rope_scaling": YARN
        | {"original_max_position_embeddings": 16, "beta_fast": 8, "beta_slow": 2}
        | {"mscale": 1.0, "mscale_all_dim": 0.5, "truncate": False},
    },
    "yarn, factor": {"rope_theta": 50.0, "rope_scaling": YARN | {"attention_factor": 1.3}},
    "longrope": {
        "rope_theta": 500.0,
        "max_position_embeddings": 64,
        "rope_scaling": LONG | {"type": "longrope", "original_max_position_embeddings": 16},
    },
    "longrope, beside": {
        "rope_theta": 500.0,
        "max_position_embeddings": 64,
        "original_max_position_embeddings": 16,
        "rope_scaling": LONG | {"rope_type": "longrope", "factor": 3.0},
    },
    "proportional": {
        "rope_parameters": {
            "rope_type": "proportional",
            "rope_theta": 500.0,
            "partial_rotary_factor": 0.5,
        }
    },
}
# class -> family, what its config.json says beside
BODIES = {
    "Llama": ("a2d-llama", {}),
    "Qwen2": ("Dream", {}),
    "Qwen3": ("a2d-qwen3", {"head_dim": 16}),
}


def checkpoint(folder, body, settings):
    """The model of transformers for a config.json that it and we read; ours reads `folder`."""
    family, extra = BODIES[body]
    told = SIZES | extra | {"rms_norm_eps": 1e-6, "tie_word_embeddings": False} | settings
    # transformers writes into the tables that it is given
    config = getattr(transformers, f"{body}Config").from_dict(json.loads(json.dumps(told)))
    torch.manual_seed(0)
    model = getattr(transformers, f"{body}ForCausalLM")._from_config(config)
    for parameter in model.parameters():
        noise = torch.randn_like(parameter)
        parameter.data.copy_(0.3 * noise if parameter.ndim > 1 else parameter + 0.1 * noise)
    model.eval().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(told | {"model_type": family}))
    return model


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("case", SETTINGS)
def test_logits_are_those_of_transformers(tmp_path, body, case):
    """Within the original length of 16 and beyond it, in this order and back."""
    model = checkpoint(tmp_path, body, SETTINGS[case])
    ours = load_model(tmp_path, device="cpu")
    for length in (8, 16, 17, 40, 12):
        ids = torch.randint(0, 96, (1, length), generator=torch.Generator().manual_seed(length))
        with torch.no_grad():
            mask = torch.ones(1, 1, length, length, dtype=torch.bool)
            theirs = model(ids, attention_mask=mask, use_cache=False).logits
        assert (logits(ours, ids) - theirs).abs().max() <= 2e-5 * (theirs.max() - theirs.min())


def test_settings_make_a_difference(tmp_path):
    """No case above is another one by accident."""
    ids = torch.randint(0, 96, (1, 40), generator=torch.Generator().manual_seed(0))
    seen = {}
    for case in SETTINGS:
        folder = tmp_path / case
        folder.mkdir()
        checkpoint(folder, "Llama", SETTINGS[case])
        seen[case] = logits(load_model(folder, device="cpu"), ids)
    same = {"flat", "table", "both", "beside", "nulls", "empty"}
    for case, found in seen.items():
        assert torch.equal(found, seen["flat"]) == (case in same), case


KINDS = {
    "dynamic": ({}, ("rope_scaling", {"rope_type": "dynamic", "factor": 4.0})),
    "longrope": (
        {"max_position_embeddings": 256, "original_max_position_embeddings": 16},
        ("rope_scaling", {"rope_type": "longrope", "short_factor": [1.0] * 4}),
    ),
    "yarn": ({}, ("rope_scaling", {"rope_type": "yarn", "factor": 16.0})),
}


def scaled_engine(kind, **changes):
    """An engine with random weights whose angles depend on the canvas's length."""
    beside, (name, table) = KINDS[kind]
    long = {"long_factor": [4.0 + i for i in range(4)]} if kind == "longrope" else {}
    told = SIZES | {"num_attention_heads": 4, "rms_norm_eps": 1e-6, "rope_theta": 100.0}
    told |= {"model_type": "a2d-llama", name: table | long} | beside
    scaling = read_spec(told).rotary_scaling
    spec = tiny_spec(**changes, rotary_scaling=scaling, rope_theta=100.0)
    return Engine(random_decoder(spec), info_of(spec))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", [{}, {"attention": "block_causal", "block_length": 4}])
@pytest.mark.parametrize("tokens", [8, 24], ids=["short", "long"])
def test_stored_keys_are_turned_by_the_table_of_the_canvas(kind, family, tokens):
    """Every commit's confidence is that of a forward over the whole canvas of its length."""
    engine = scaled_engine(kind, **family)
    prompt, mates = [5, 9, 33, 12], [[7] * 3, [8] * 50]
    cache = "block_causal" if family else "none"
    options = {"cache": cache, "blocks": "fixed(4)", "unmask": f"topk(steps={tokens // 2})"}
    alone = engine.generate(prompt, max_new_tokens=tokens, trace=True, stop="none", **options)
    batch = engine.generate(
        [prompt, *mates], max_new_tokens=tokens, trace=True, stop="none", **options
    )
    assert batch[0].canvas == alone.canvas
    canvas = [*prompt, *[63] * (len(alone.canvas) - len(prompt))]
    for event in alone.trace:
        if event.type == "commit":
            probs = engine.logits([canvas])[0].softmax(-1)
            found = torch.tensor([probs[p, i] for p, i in zip(event.pos, event.ids, strict=True)])
            assert torch.allclose(found, torch.tensor(event.conf), atol=1e-4)
            for position, token in zip(event.pos, event.ids, strict=True):
                canvas[position] = token


def test_padding_and_batch_mates_do_not_change_the_length():
    engine = scaled_engine("dynamic")
    row = list(range(3, 23))
    ids = torch.zeros(2, 40, dtype=torch.long)
    mask = torch.zeros(2, 40)
    ids[0, 20:], mask[0, 20:] = torch.tensor(row), 1
    ids[1], mask[1] = 9, 1
    found = engine.logits(ids, mask)
    assert torch.allclose(found[0, 20:], engine.logits([row])[0], atol=1e-4)


def test_requests_share_no_keys_whose_angles_depend_on_the_canvas():
    spec = scaled_engine("dynamic", attention="block_causal", block_length=4).model.spec
    with pytest.raises(InvalidRequest, match="`prefix_bytes`: must be 0: with 'dynamic' rotary"):
        Engine(random_decoder(spec), info_of(spec), prefix_bytes=1 << 20)


def test_the_length_that_a_model_is_made_for():
    base = QWEN3_06B | {"model_type": "a2d-qwen3", "max_position_embeddings": 1000}

    def most(**settings):
        return read_spec(base | settings).max_length

    assert most() == 1000
    assert most(rope_scaling={"type": "linear", "factor": 4.0}) == 1000
    assert most(rope_scaling={"type": "dynamic", "factor": 4.0}) == 4000
    assert most(rope_parameters=YARN | {"rope_theta": 5.0}) == 4000
    assert most(rope_scaling=YARN | {"original_max_position_embeddings": 250}) == 1000
    assert most(rope_scaling=LLAMA3) == 1000


def test_a_corrected_base_scales_too():
    told = QWEN3_06B | {"model_type": "a2d-qwen3", "rope_scaling": LLAMA3}
    spec = read_spec(told, overrides={"rope_theta": 500.0})
    assert (spec.rope_theta, spec.rotary_scaling.kind) == (500.0, "llama3")


def test_layers_of_one_kind_take_their_own_table():
    full = {"rope_type": "default", "rope_theta": 500.0}
    tables = {"full_attention": full, "sliding_attention": {"rope_theta": 7.0}}
    told = QWEN3_06B | {"model_type": "a2d-qwen3", "rope_theta": 9.0, "rope_parameters": tables}
    assert read_spec(told).rope_theta == 500.0
    tables = {"full_attention": {"rope_type": "linear", "factor": 2.0}, "sliding_attention": None}
    spec = read_spec(told | {"rope_parameters": tables})
    assert (spec.rope_theta, spec.rotary_scaling.kind) == (9.0, "linear")


def test_half_turned_heads_scale_too():
    spec = read_spec(LLADA2_MINI | {"rope_scaling": {"type": "linear", "factor": 4.0}})
    assert (spec.rotary_dim, spec.rotary_scaling.kind) == (64, "linear")
    plain = read_spec(LLADA2_MINI)
    at = torch.tensor([0, 4, 40])
    with torch.device("meta"):
        scaled, unscaled = Decoder(spec).rotary, Decoder(plain).rotary
    found, expected = scaled.tables(at * 4), unscaled.tables(at)
    assert found[0].shape == (3, 1, 64)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))


def test_stores_ask_for_lengths_only_where_they_matter():
    for kind, by_length in (("dynamic", True), ("longrope", True), ("yarn", False)):
        spec = scaled_engine(kind).model.spec
        store = KVStore(spec, 1, device=torch.device("cpu"), dtype=torch.float32)
        assert store.angles_by_length is spec.angles_by_length is by_length


REFUSED = [
    ({"rope_scaling": {"type": "mrope", "mrope_section": [1]}}, "`rope_scaling` must be"),
    ({"rope_scaling": {"rope_type": "su", "factor": 2}}, "of a type among 'default', 'linear'"),
    ({"rope_scaling": {"type": "linear"}}, "a table with 'factor' for type 'linear'"),
    ({"rope_scaling": {"type": "linear", "factor": None}}, "a table with 'factor'"),
    (
        {"rope_scaling": {"type": "linear", "factor": "2"}},
        "`rope_scaling.factor` must be a positive",
    ),
    ({"rope_scaling": {"type": "linear", "factor": 0}}, "`rope_scaling.factor` must be a positive"),
    ({"rope_scaling": {"type": "yarn"}}, "a table with 'factor' for type 'yarn'"),
    ({"rope_scaling": YARN | {"truncate": 1}}, "`rope_scaling.truncate` must be true or false"),
    ({"rope_scaling": YARN | {"finetuned": True}}, "without 'finetuned', unknown here"),
    ({"rope_scaling": LLAMA3 | {"high_freq_factor": 0.5}}, "with `high_freq_factor` above"),
    (
        {"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 1.5}},
        "`rope_scaling.original_max_position_embeddings` must be a positive integer, got 1.5",
    ),
    (
        {"rope_scaling": LONG | {"type": "longrope"}},
        "`rope_scaling.short_factor` must be a list of 64",
    ),
    ({"rope_scaling": [1]}, "`rope_scaling` must be null or a table, got [1]"),
    (
        {"rope_parameters": {"sliding_attention": {"rope_theta": 1.0}}},
        "'full_attention' among them",
    ),
    (
        {"rope_parameters": {"full_attention": {"rope_theta": 1.0}, "rope_theta": 5.0}},
        "'full_attention' among them",
    ),
    ({"rope_parameters": {"rope_theta": "big"}}, "`rope_parameters.rope_theta` must be a positive"),
    ({"rope_theta": None}, "lacks the field `rope_theta`"),
    ({"rope_theta": True}, "`rope_theta` must be a positive number, got True"),
    ({"partial_rotary_factor": 0.5}, "1: this family turns whole heads, got 0.5"),
    ({"partial_rotary_factor": 1.5}, "`partial_rotary_factor` must be at most 1"),
]


@pytest.mark.parametrize(("settings", "text"), REFUSED, ids=[text for _, text in REFUSED])
def test_what_is_not_supported_is_refused_by_name(settings, text):
    with pytest.raises(InvalidRequest) as refusal:
        read_spec(DREAM_7B | settings)
    assert refusal.value.param == "model"
    assert text in refusal.value.message


def test_a2d_llama_with_llama3_angles_decodes(tmp_path):
    checkpoint(tmp_path, "Llama", SETTINGS["llama3"] | {"max_position_embeddings": 128})
    engine = dlm.load(tmp_path, device="cpu", overrides={"mask_id": 95})
    assert engine.model.spec.rotary_scaling.kind == "llama3"
    found = [
        engine.generate([5, 9, 33], max_new_tokens=40, stop="none", cache=cache).canvas
        for cache in ("none", "none")
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", [None, "dynamic"])
def test_tables_are_made_once_for_the_steps_of_a_plan(kind):
    rotary = scaled_engine(kind).model.rotary if kind else Rotary(tiny_spec())
    positions, lengths = torch.arange(5), torch.full((5,), 9)
    first = rotary.tables(positions, lengths)
    assert all(a is b for a, b in zip(rotary.tables(positions, lengths), first, strict=True))
    moved = rotary.tables(positions + 1, lengths)
    assert not torch.equal(moved[0], first[0])
    again = rotary.tables(positions.clone(), lengths)
    assert all(torch.equal(a, b) for a, b in zip(again, first, strict=True))
    longer = rotary.tables(positions, lengths * 100)
    assert torch.equal(longer[0], first[0]) is (kind is None)


def test_steps_inside_a_block_share_their_tables(monkeypatch):
    made, frequencies = [], Rotary._frequencies

    def counted(self, device, lengths):
        made.append(lengths)
        return frequencies(self, device, lengths)

    monkeypatch.setattr(Rotary, "_frequencies", counted)
    options = {"max_new_tokens": 16, "blocks": "fixed(8)", "unmask": "topk", "stop": "none"}
    engine = Engine(random_decoder(tiny_spec()), info_of(tiny_spec()))
    assert engine.generate((5, 9, 33), cache="dual", **options).stats.nfe >= 16
    assert len(made) <= 6
