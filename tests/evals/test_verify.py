"""Checks of a checkpoint: right ones pass, and each thing that is wrong is seen."""

import hashlib
import random
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import dlm
from dlm.cli.app import run
from dlm.engine.load import BUNDLED
from dlm.errors import InvalidRequest
from dlm.evals import verify
from dlm.evals.reconstruction import read_otherwise
from dlm.evals.soundness import RECORD, read_record
from tests.helpers import PARITY

IDS = {"mask_id": 127}


def statuses(checks, last=None):
    """The statuses by name, of the checks up to one."""
    found = {}
    for check in checks:
        found[check.name] = check.status
        if check.name == last:
            break
    return found


def test_the_bundled_checkpoint_passes():
    found = list(verify.verify("tiny", device="cpu"))
    assert [c for c in found if c.status == "wrong"] == []
    by_name = statuses(found)
    assert by_name["mask id"] == by_name["tokenizer"] == by_name["paged forward"] == "ok"
    assert by_name["transformers"] == "skipped"
    assert sum(check.name == "decode" for check in found) == 3


@pytest.mark.parametrize("family", ["dream", "sdar"])
def test_logits_are_those_of_the_body_in_transformers(family):
    """Full attention with a shift, and block-causal attention."""
    found = {c.name: c for c in verify.verify(PARITY / "models" / family, overrides=IDS)}
    assert found["transformers"].status == "ok", found["transformers"].detail
    assert found["transformers"].detail.startswith("Qwen")
    assert found["paged forward"].status == "ok"


def test_other_logits_are_seen(monkeypatch):
    logits = dlm.Engine.logits

    def off(self, ids, attention_mask=None):
        return logits(self, ids, attention_mask) * 1.01

    monkeypatch.setattr(dlm.Engine, "logits", off)
    by_name = statuses(verify.verify(PARITY / "models" / "dream", overrides=IDS))
    assert by_name["transformers"] == by_name["paged forward"] == "wrong"


def test_special_ids_that_are_no_control_tokens_are_seen(capsys):
    checks = verify.verify("tiny", overrides={"mask_id": 500, "eos_ids": (501,)})
    checks = statuses(checks, last="end id")
    assert checks["mask id"] == checks["end id"] == "wrong"
    assert run(["verify", "tiny", "--mask-id", "500"]) == 1
    assert "wrong    mask id" in capsys.readouterr().out


def test_decodes_that_differ_are_seen(monkeypatch):
    generate, calls = dlm.Engine.generate, []

    def moody(self, prompt, **options):
        calls.append(1)
        return generate(self, prompt, **options, seed=len(calls), temperature=2.0)

    monkeypatch.setattr(dlm.Engine, "generate", moody)
    decodes = (check for check in verify.verify("tiny") if check.name == "decode")
    assert any(check.status == "wrong" for check in decodes)


def test_a_checkpoint_that_does_not_load_is_an_error(tmp_path, capsys):
    with pytest.raises(InvalidRequest, match=r"no config\.json"):
        list(verify.verify(tmp_path))
    broken = shutil.copytree(PARITY / "models" / "sdar", tmp_path / "sdar")
    (broken / "model.safetensors").unlink()
    assert run(["verify", str(broken), "--mask-id", "127"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("ok       files")
    assert "safetensors" in err


def test_common_ids_have_masks():
    engine = dlm.load("tiny", device="cpu")
    ids = verify._ids(engine)
    assert ids.shape == (2, 24)
    assert int((ids == engine.info.mask_id).sum()) >= 12
    assert ids.dtype == torch.long


# what the weights know, and how they are read


def wrong(source, **options):
    return {c.name: c.detail for c in verify.verify(source, **options) if c.status == "wrong"}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("tiny-ar", "float16"), ("tiny-block", "bfloat16")],
)
def test_half_precision_is_measured_by_its_own_rounding(name, dtype):
    assert wrong(name, dtype=dtype, device="cpu") == {}


def test_causal_models_are_checked_too(capsys):
    found = {c.name: c for c in verify.verify("tiny-ar", device="cpu")}
    assert {c.status for c in found.values()} == {"ok"}
    assert found["transformers"].detail.startswith("Llama")
    assert found["files"].detail.endswith("causal attention")
    assert run(["info", "tiny-ar"]) == 0
    assert "causal" in capsys.readouterr().out


READ_WRONGLY = [
    ("tiny", {"shift": True}, "reading", "with shift=False"),
    ("tiny", {"rope_theta": 100000.0}, "reading", "with rope_theta=10000.0"),
    ("tiny", {"rope_theta": 20000.0}, "record", "differ by"),
    ("tiny", {"norm_eps": 0.01}, "record", "differ by"),
    ("tiny", {"attention": "block_causal", "block_length": 8}, "reading", "with "),
    ("tiny-block", {"shift": True}, "reading", "with shift=False"),
    ("tiny-block", {"block_length": 4}, "record", "its blocks ask for"),
    ("tiny-ar", {"rope_theta": 11000.0}, "record", "differ by"),
]


@pytest.mark.parametrize(("name", "overrides", "check", "text"), READ_WRONGLY)
def test_a_model_that_is_read_wrongly_is_seen(name, overrides, check, text):
    checks = verify.verify(name, overrides=overrides, device="cpu")
    found = next(c for c in checks if c.name == check)
    assert found.status == "wrong"
    assert text in found.detail


def test_the_command_line_fails_for_a_model_that_is_read_wrongly(capsys):
    assert run(["verify", "tiny", "--override", "shift=true"]) == 1
    out, err = capsys.readouterr()
    assert "wrong    reading" in out
    assert "no better than shuffled weights" in out
    assert "bug" not in err


@pytest.fixture
def copied(tmp_path):
    """A copy of a bundled checkpoint that no record speaks for."""
    folder = shutil.copytree(BUNDLED / "tiny-block", tmp_path / "copy")
    (folder / RECORD).unlink()
    return folder


def overwrite(folder, content, at=0.5):
    """Write bytes into the weights, at a part of the file."""
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    first = int(len(data) * at) // 2 * 2
    data[first : first + len(content)] = content
    path.write_bytes(data)


JUNK = {
    "noise": random.Random(0).randbytes(1000),
    "zeros": bytes(1000),
    "ones": b"\xff" * 1000,
    "letters": b"this is a log of another program " * 30,
}


@pytest.mark.parametrize("content", JUNK)
@pytest.mark.parametrize("at", [0.45, 0.8])
def test_overwritten_bytes_are_seen_with_no_record_to_compare(copied, content, at):
    overwrite(copied, JUNK[content], at)
    checks = verify.verify(copied, device="cpu")
    weights = next(check for check in checks if check.name == "weights")
    assert weights.status == "wrong"
    assert re.search(r"model\.layers\.\d.*\([\d,]+ of [\d,]+\)", weights.detail)


def test_one_changed_byte_is_seen_by_the_record(tmp_path):
    folder = shutil.copytree(BUNDLED / "tiny", tmp_path / "copy")
    overwrite(folder, b"\x12")
    weights = next(c for c in verify.verify(folder, device="cpu") if c.name == "weights")
    assert "model.safetensors is not the published file" in weights.detail


def test_files_of_the_hubs_cache_are_what_their_names_say(copied, tmp_path):
    """There each weight file is a link to a file that is named by its sha256."""
    weights, data = copied / "model.safetensors", (copied / "model.safetensors").read_bytes()
    for content, status in ((data, "ok"), (data[:-1] + b"\x01", "wrong")):
        blob = tmp_path / hashlib.sha256(data).hexdigest()
        blob.write_bytes(content)
        weights.unlink()
        weights.symlink_to(blob)
        checks = verify.verify(copied, device="cpu")
        assert next(c.status for c in checks if c.name == "weights") == status


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(copied, value, capsys):
    tensors = load_file(copied / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"][3, :7] = value
    save_file(tensors, copied / "model.safetensors")
    assert run(["verify", str(copied)]) == 1
    out, err = capsys.readouterr()
    assert "not finite in model.layers.2.mlp.up_proj.weight (7 of" in out
    assert "wrong    logits" in out
    assert "the checkpoint's logits are not finite" in out
    assert "bug" not in out + err


def test_random_weights_know_nothing(copied):
    tensors = load_file(copied / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in tensors.items():
        noise = torch.randn(tensor.shape, generator=generator) * tensor.float().std()
        tensors[name] = (noise + ("norm" in name)).to(tensor.dtype)
    save_file(tensors, copied / "model.safetensors")
    found = wrong(copied, device="cpu")
    assert found["knowledge"].startswith("no better than shuffled weights")
    assert "weights" not in found


def test_records_of_the_bundled_checkpoints_are_those_of_their_files():
    for name in dlm.bundled_names():
        record = read_record(BUNDLED / name)
        digest = hashlib.sha256((BUNDLED / name / "model.safetensors").read_bytes()).hexdigest()
        assert record["sha256"] == {"model.safetensors": digest}
        assert len(record["scores"]) > 50


def test_another_reading_shares_the_weights():
    engine = dlm.load("tiny", device="cpu")
    twin = read_otherwise(engine, {"shift": True})
    ours, theirs = engine.model.embedding.weight, twin.model.embedding.weight
    assert ours.data_ptr() == theirs.data_ptr()
    assert twin.info.shift
    ids = [[5, 9, 33, 12]]
    assert torch.equal(twin.logits(ids)[:, 1:], engine.logits(ids)[:, :-1])
