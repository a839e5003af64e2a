"""Files of a checkpoint that are wrong: each is refused, and the refusal names it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from dlm.cli.app import run
from dlm.errors import InvalidRequest
from dlm.model.loading import load_model
from tests.helpers import PARITY

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 15231271888\n"


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(PARITY / "models" / "sdar", tmp_path / "sdar")


def edited(folder, change):
    """Rewrite the weights after `change` has edited their tensors."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def sharded(folder, weight_map):
    """Replace the weights by two shards under an index that says `weight_map(keys)`."""
    tensors = load_file(folder / WEIGHTS)
    keys = sorted(tensors)
    save_file({key: tensors[key] for key in keys[::2]}, folder / "a.safetensors")
    save_file({key: tensors[key] for key in keys[1::2]}, folder / "b.safetensors")
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps(weight_map(keys)))


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def config(folder, **changes):
    told = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(told))


def both(keys):
    return {"weight_map": dict.fromkeys(keys[::2], "a.safetensors") | {"x": "b.safetensors"}}


BREAKS = {
    "weights cut": (lambda f: cut(f / WEIGHTS, 0.9), "model.safetensors is truncated or not"),
    "header cut": (lambda f: cut(f / WEIGHTS, 0.001), "model.safetensors is truncated or not"),
    "weights empty": (
        lambda f: (f / WEIGHTS).write_text(""),
        "model.safetensors is truncated or not",
    ),
    "weights noise": (lambda f: (f / WEIGHTS).write_bytes(b"\x07" * 999), "truncated or not"),
    "weights pointer": (lambda f: (f / WEIGHTS).write_text(POINTER), "safetensors is a Git LFS"),
    "weights folder": (
        lambda f: ((f / WEIGHTS).unlink(), (f / WEIGHTS).mkdir()),
        "holds no weights",
    ),
    "weights gone": (lambda f: (f / WEIGHTS).unlink(), "holds no weights"),
    "tensor gone": (lambda f: edited(f, lambda t: t.popitem()), "lacks 1 tensor"),
    "tensor more": (lambda f: edited(f, lambda t: t.update(x=torch.ones(2))), "('x') that family"),
    "shape": (
        lambda f: edited(f, lambda t: t.update({"model.norm.weight": torch.ones(3)})),
        "'model.norm.weight' with shape [3]",
    ),
    "dtype": (
        lambda f: edited(
            f, lambda t: t.update({"model.norm.weight": t["model.norm.weight"].to(torch.int8)})
        ),
        "'model.norm.weight' as I8; quantised weights are not supported",
    ),
    "twice": (
        lambda f: edited(
            f, lambda t: t.update({"model.language_model.norm.weight": t["model.norm.weight"] + 1})
        ),
        "holds 'model.norm.weight' twice",
    ),
    "layers": (lambda f: config(f, num_hidden_layers=1), "has no place for"),
    "more layers": (lambda f: config(f, num_hidden_layers=9), "lacks"),
    "width": (lambda f: config(f, hidden_size=64, head_dim=16), "but config.json asks for"),
    "vocabulary": (lambda f: config(f, vocab_size=999), "but config.json asks for [999"),
    "shard gone": (
        lambda f: sharded(f, lambda k: {"weight_map": dict.fromkeys(k, "c.safetensors")}),
        "lacks 1 shard ('c.safetensors')",
    ),
    "shard empty": (
        lambda f: (sharded(f, both), (f / "b.safetensors").write_text("")),
        "b.safetensors is truncated or not",
    ),
    "shards elsewhere": (
        lambda f: sharded(f, lambda k: {"weight_map": {"x": "../a.safetensors"}}),
        "must name files of its folder, got '../a.safetensors'",
    ),
    "index numbers": (
        lambda f: sharded(f, lambda k: {"weight_map": {"x": 5}}),
        "must name files of its folder, got 5",
    ),
    "index empty": (lambda f: sharded(f, lambda k: {"weight_map": {}}), "got 'none'"),
    "index list": (lambda f: sharded(f, lambda k: [1]), "is not a weight index"),
    "index mixed": (
        lambda f: sharded(f, lambda k: {"weight_map": {"x": 5, "y": "a"}}),
        "is not a weight index",
    ),
    "index cut": (
        lambda f: (sharded(f, both), cut(f / INDEX, 0.5)),
        "index.json is not a weight index",
    ),
    "config gone": (lambda f: (f / "config.json").unlink(), "it has no config.json"),
    "config cut": (lambda f: cut(f / "config.json", 0.5), "config.json is not readable JSON"),
    "config empty": (
        lambda f: (f / "config.json").write_text(""),
        "config.json is not readable JSON",
    ),
    "config list": (lambda f: (f / "config.json").write_text("[1]"), "must hold a JSON object"),
    "config bytes": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), "not readable JSON"),
    "config pointer": (lambda f: (f / "config.json").write_text(POINTER), "json is a Git LFS"),
    "config deep": (lambda f: (f / "config.json").write_text("[" * 10**5), "not readable JSON"),
    "ends": (
        lambda f: (f / "generation_config.json").write_text('{"eos_token_id": [[2],[0]]}'),
        "generation_config.json: `eos_token_id` must be null, a token id or a list",
    ),
    "ends empty": (
        lambda f: (f / "generation_config.json").write_text(""),
        "generation_config.json is not readable JSON",
    ),
    "tokens": (
        lambda f: (f / "added_tokens.json").write_text('{"<|MASK|>": [1]}'),
        "added_tokens.json lists added tokens in no known form",
    ),
    "tokens decoder": (
        lambda f: (f / "tokenizer_config.json").write_text('{"added_tokens_decoder": [1]}'),
        "tokenizer_config.json lists added tokens in no known form",
    ),
    "tokens listed": (
        lambda f: (f / "tokenizer.json").write_text('{"added_tokens": [{"id": 3}]}'),
        "tokenizer.json lists added tokens in no known form",
    ),
    "tokenizer cut": (
        lambda f: (f / "tokenizer.json").write_text('{"added'),
        "tokenizer.json is not readable JSON",
    ),
    "tokenizer pointer": (
        lambda f: (f / "tokenizer.json").write_text(POINTER),
        "tokenizer.json is a Git LFS pointer",
    ),
}


@pytest.mark.parametrize("case", BREAKS)
def test_wrong_files_are_refused_by_name(folder, case):
    break_it, text = BREAKS[case]
    break_it(folder)
    with pytest.raises(InvalidRequest) as refused:
        load_model(folder, device="cpu", overrides={"mask_id": 127})
    assert refused.value.param == "model"
    assert text in refused.value.message
    assert str(folder) in refused.value.message or "config.json" in refused.value.message


@pytest.mark.parametrize(
    "case", ["weights cut", "weights pointer", "ends", "config cut", "index list"]
)
@pytest.mark.parametrize("command", ["verify", "info", "generate"])
def test_the_command_line_calls_none_a_bug(folder, case, command, capsys):
    break_it, text = BREAKS[case]
    break_it(folder)
    model = ["hello", "--model"] if command == "generate" else []
    code = run([command, *model, str(folder), "--mask-id", "127"])
    weights_alone = command == "info" and not case.startswith(("ends", "config"))
    err = capsys.readouterr().err
    assert code == (0 if weights_alone else 2)
    assert weights_alone or text in err
    assert "bug" not in err
