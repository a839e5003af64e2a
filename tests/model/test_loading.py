import json
import re
import shutil
from fnmatch import fnmatch

import accelerate
import pytest
import torch
from safetensors.torch import load_file, save_file

from dlm.errors import InvalidRequest
from dlm.model import loading
from dlm.model.loading import added_tokens, checkpoint_folder, load_model
from dlm.model.offload import device_map, fits, weight_bytes
from tests.helpers import PARITY, logits, random_decoder, tiny_spec

IDS = torch.arange(48).view(2, 24)


@pytest.fixture
def folder(tmp_path):
    """A copy of the tiny SDAR checkpoint, to be broken."""
    return shutil.copytree(PARITY / "models" / "sdar", tmp_path / "sdar")


def weights(folder):
    return load_file(folder / "model.safetensors")


def rewrite(folder, tensors, **fields):
    """Replace the weights and set fields of config.json."""
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(config))


def shard(folder, parts=3):
    """Split model.safetensors into an indexed set of files."""
    tensors, index = weights(folder), {}
    for part in range(parts):
        name = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        chunk = {key: tensors[key] for key in sorted(tensors)[part::parts]}
        save_file(chunk, folder / name)
        index |= dict.fromkeys(chunk, name)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def refusal(source, param="model", **options):
    with pytest.raises(InvalidRequest) as caught:
        load_model(source, **options)
    assert caught.value.param == param
    return caught.value.message


def test_a_loaded_decoder_is_ready_for_inference(folder):
    decoder = load_model(folder)
    assert not decoder.training
    assert not any(parameter.requires_grad for parameter in decoder.parameters())
    assert {parameter.dtype for parameter in decoder.parameters()} == {torch.float32}
    assert str(folder) == str(checkpoint_folder(str(folder)))


def test_shards_load_as_one_file(folder):
    whole = load_model(folder).state_dict()
    shard(folder)
    parts = load_model(str(folder)).state_dict()
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_dtype_is_as_asked_and_routers_stay_float32():
    half = load_model(PARITY / "models/llada2", dtype="bfloat16", device="cpu")
    kinds = {name: parameter.dtype for name, parameter in half.named_parameters()}
    wide = {name for name, kind in kinds.items() if kind == torch.float32}
    assert wide == {
        f"layers.{layer}.mlp.{name}" for layer in (1, 2) for name in ("router", "selection_bias")
    }
    assert set(kinds.values()) == {torch.float32, torch.bfloat16}
    assert (
        load_model(PARITY / "models/sdar", dtype=torch.float64).norm.weight.dtype == torch.float64
    )


def test_half_precision_files_become_float32_on_the_cpu(folder):
    rewrite(folder, {key: tensor.bfloat16() for key, tensor in weights(folder).items()})
    assert load_model(folder, device="cpu").norm.weight.dtype == torch.float32


def test_special_ids_come_from_generation_config_and_tokenizer_too(folder):
    (folder / "generation_config.json").write_text('{"eos_token_id": [496, 7]}')
    (folder / "added_tokens.json").write_text('{"<|MASK|>": 500}')
    (folder / "tokenizer_config.json").write_text(
        '{"added_tokens_decoder": {"9": {"content": "<|end|>"}}}'
    )
    rewrite(folder, weights(folder), mask_token_id=None)
    assert added_tokens(folder) == {"<|MASK|>": 500, "<|end|>": 9}
    spec = load_model(folder).spec
    assert (spec.mask_id, spec.eos_ids) == (500, (496, 7))


def test_overrides_reach_the_spec(folder):
    spec = load_model(folder, overrides={"mask_id": 3, "block_length": 8, "shift": True}).spec
    assert (spec.mask_id, spec.block_length, spec.shift) == (3, 8, True)
    assert "must be one of 'attention'" in refusal(folder, "overrides", overrides={"mask": 3})


def test_tied_heads_share_memory(folder):
    tensors = weights(folder)
    head = tensors.pop("lm_head.weight")
    rewrite(folder, tensors)
    text = refusal(folder)
    assert "lacks 1 tensor ('lm_head.weight'); a head that shares the embedding needs" in text
    tied = load_model(folder, overrides={"tied_head": True})
    assert tied.head.weight is tied.embedding.weight
    rewrite(folder, tensors | {"lm_head.weight": head}, tie_word_embeddings=True)
    assert "'lm_head.weight' differs from it; overrides={'tied_head': False}" in refusal(folder)
    copy = tensors["model.embed_tokens.weight"].clone()
    rewrite(folder, tensors | {"lm_head.weight": copy})
    assert torch.equal(load_model(folder).head.weight, copy)


def test_published_variants_of_llada2_load_alike(tmp_path):
    folder = shutil.copytree(PARITY / "models" / "llada2", tmp_path / "llada2")
    plain, tensors = load_model(folder), weights(folder)
    stacked, pattern = {}, re.compile(r"(.*mlp\.experts)\.\d+\.(gate|up|down)_proj\.weight")
    for key, tensor in tensors.items():
        match = pattern.fullmatch(key)
        if match:
            name, count = f"{match[1]}.{match[2]}_proj", plain.spec.moe.experts
            each = [tensors[f"{match[1]}.{e}.{match[2]}_proj.weight"] for e in range(count)]
            stacked[name.replace("model.", "model.language_model.", 1)] = torch.stack(each)
        elif key == "lm_head.weight":
            stacked["model.lm_head.weight"] = tensor
        else:
            stacked[key.replace("model.", "model.language_model.", 1)] = tensor
    rewrite(folder, stacked)
    assert torch.equal(logits(load_model(folder), IDS), logits(plain, IDS))
    rewrite(folder, tensors, norm_head=True)
    unit = load_model(folder).head.weight
    assert torch.allclose(unit.norm(dim=0), torch.ones(unit.shape[1]))
    assert torch.allclose(unit * plain.head.weight.norm(dim=0), plain.head.weight, atol=1e-6)


def test_not_a_checkpoint(tmp_path, folder):
    assert "is not a checkpoint folder: it has no config.json" in refusal(tmp_path)
    assert "is not a checkpoint folder" in refusal(folder / "config.json")
    assert "must be a folder or a hub id 'owner/name'" in refusal(tmp_path / "absent")
    assert "'owner/name', but no-such-folder does not exist" in refusal("no-such-folder")
    assert "applies to hub ids only" in refusal(folder, "revision", revision="main")


def test_config_json_must_be_an_object(folder):
    (folder / "config.json").write_text("{not json")
    assert "config.json is not readable JSON: Expecting property name" in refusal(folder)
    (folder / "config.json").write_text("[1]")
    assert "config.json must hold a JSON object, got list" in refusal(folder)


def test_unknown_family_and_missing_field(folder):
    tensors = weights(folder)
    path = folder / "config.json"
    rewrite(folder, tensors, eos_token_id="x")
    assert refusal(folder).startswith(f"{path}: `eos_token_id` must be null, a token id")
    rewrite(folder, tensors, hidden_size=None)
    assert refusal(folder) == f"{path} of family 'sdar' lacks the field `hidden_size`"
    rewrite(folder, tensors, model_type="mamba")
    assert refusal(folder).startswith(f"{path}: `model_type` must be one of 'Dream', ")
    assert "'sdar_moe', got 'mamba'" in refusal(folder)
    assert "qwen" not in refusal(folder).replace("a2d-qwen", ""), "only those that can be decoded"
    told = refusal(folder, "overrides", overrides={"family": "mamba"})
    assert told.startswith("`family` must be one of 'Dream', ")


@pytest.mark.parametrize("source", ["", " "])
def test_no_name_at_all(source):
    assert refusal(source) == "must be a folder or a hub id 'owner/name', got ''"


def test_missing_weights(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    text = refusal(folder)
    assert "holds only pickled weights (pytorch_model.bin), which can run code when read" in text
    (folder / "pytorch_model.bin").unlink()
    assert "holds no weights: neither model.safetensors nor model.safetensors.index" in refusal(
        folder
    )


def test_missing_shard_is_named(folder):
    shard(folder)
    (folder / "model-00002-of-00003.safetensors").unlink()
    assert "lacks 1 shard ('model-00002-of-00003.safetensors') of 3" in refusal(folder)
    (folder / "model.safetensors.index.json").write_text('{"weights": 1}')
    assert "is not a weight index: KeyError('weight_map')" in refusal(folder)


def test_truncated_or_corrupt_file_is_named(folder):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for broken in (content[:-100], content[:4], b"\xff" * 64, b""):
        path.write_bytes(broken)
        assert f"{path} is truncated or not a safetensors file: " in refusal(folder)


def test_missing_and_unexpected_tensors_are_counted_and_named(folder):
    tensors = weights(folder)
    missing = {key: tensor for key, tensor in tensors.items() if ".2." not in key}
    rewrite(folder, missing)
    text = refusal(folder)
    assert re.search(r"lacks 11 tensors \('model\.layers\.2\.\S+', '\S+', '\S+', \.\.\.\)$", text)
    assert "tied_head" not in text
    extra = {
        "model.layers.0.self_attn.q_proj.bias": torch.zeros(128),
        "v_head.weight": torch.ones(1),
    }
    rewrite(folder, tensors | extra)
    text = refusal(folder)
    assert "holds 2 tensors ('model.layers.0.self_attn.q_proj.bias', 'v_head.weight')" in text
    assert text.endswith("that family 'sdar' has no place for")


def test_rotary_tables_are_ignored(folder):
    table = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(16)}
    rewrite(folder, weights(folder) | table)
    load_model(folder)


def test_misshapen_and_quantised_tensors_are_named(folder):
    tensors, key = weights(folder), "model.layers.1.mlp.up_proj.weight"
    rewrite(folder, tensors | {key: torch.zeros(64, 176)})
    expected = f"holds {key!r} with shape [64, 176], but config.json asks for [176, 64]"
    assert refusal(folder).endswith(expected)
    rewrite(folder, tensors | {key: torch.zeros(176, 64, dtype=torch.int8)})
    assert f"holds {key!r} as I8; quantised weights are not supported" in refusal(folder)


def test_devices_and_dtypes(folder):
    assert "must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'gpu'" in refusal(
        folder, "device", device="gpu"
    )
    assert "'cuda:64' is not here: this machine has" in refusal(folder, "device", device="cuda:64")
    assert "'auto', 'bfloat16'" in refusal(folder, "dtype", dtype="int8")
    assert "got 'torch.int8'" in refusal(folder, "dtype", dtype=torch.int8)


def test_hub_ids_are_fetched_without_pickles_or_code(folder, monkeypatch):
    asked = {}

    def fetch(source, **options):
        asked.update(options, source=source)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert load_model("owner/name-1.5", revision="abc").spec.family == "sdar"
    assert (asked["source"], asked["revision"]) == ("owner/name-1.5", "abc")
    assert not any(pattern.endswith((".py", ".bin", ".pt")) for pattern in asked["allow_patterns"])


def test_looking_at_a_hub_id_fetches_no_weights(folder, monkeypatch, capsys):
    from dlm.cli import run

    asked = []

    def fetch(source, **options):
        names = [p.name for p in folder.iterdir()]
        wanted = options["allow_patterns"]
        asked.append({n for n in names if any(fnmatch(n, pattern) for pattern in wanted)})
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert run(["info", "owner/name", "--json"]) == 0
    assert '"family": "sdar"' in capsys.readouterr().out
    assert asked[0] >= {"config.json"}
    assert not any("safetensors" in name for name in asked[0])
    load_model("owner/name")
    assert any("safetensors" in name for name in asked[1])


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    def fetch(source, **options):
        raise OSError("no connection\nand a long story")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert refusal("owner/name") == (
        "'owner/name' is no folder here and could not be fetched from the hub: no connection"
    )


@pytest.mark.parametrize("tied", [False, True])
def test_layers_that_do_not_fit_wait_in_main_memory(tied):
    spec = tiny_spec(layers=6, tied_head=tied)
    decoder = loading._empty_decoder(spec)
    gpu, size = torch.device("cuda", 0), weight_bytes(decoder, torch.bfloat16)
    assert size == 2 * sum(p.numel() for p in random_decoder(spec).parameters())
    assert fits(decoder, torch.bfloat16, torch.device("cpu"))
    where = device_map(decoder, torch.bfloat16, gpu, {0: int(0.8 * size), "cpu": size})
    places = [where[f"layers.{layer}"].type for layer in range(6)]
    assert where["embedding"] == where["layers.0"] == gpu
    assert places == sorted(places, reverse=True)  # cuda first, then cpu
    assert set(places) == {"cpu", "cuda"}
    for name, _ in decoder.named_parameters():
        assert any(name.startswith(f"{prefix}.") for prefix in where)
    with pytest.raises(InvalidRequest, match="more than device and main memory have free"):
        device_map(decoder, torch.bfloat16, gpu, {0: size // 4, "cpu": size // 4})


@pytest.mark.parametrize("model", ["sdar", "llada2"])
def test_weights_that_are_fetched_as_layers_run_give_the_same_logits(model):
    decoder = load_model(PARITY / "models" / model)
    expected = logits(decoder, IDS)
    accelerate.cpu_offload(decoder, execution_device=torch.device("cpu"))
    assert decoder.layers[1].mlp_norm.weight.is_meta
    assert torch.equal(logits(decoder, IDS), expected)


@pytest.mark.gpu
def test_a_model_split_between_device_and_main_memory_gives_the_same_logits(monkeypatch):
    expected = logits(load_model(PARITY / "models/sdar", device="cpu"), IDS)
    monkeypatch.setattr("dlm.model.offload.free_bytes", lambda device: 700_000)
    split = load_model(PARITY / "models/sdar", device="cuda", dtype="float32")
    assert any(parameter.is_meta for parameter in split.parameters())
    assert torch.allclose(logits(split, IDS.cuda()).cpu(), expected, atol=1e-3)
