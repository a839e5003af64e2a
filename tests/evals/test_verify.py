"""Checks of a checkpoint: right ones pass, and each thing that is wrong is seen."""

import shutil

import pytest
import torch

import dlm
from dlm.cli.app import run
from dlm.errors import InvalidRequest
from dlm.evals import verify
from tests.helpers import PARITY

IDS = {"mask_id": 127}


def statuses(checks):
    return {check.name: check.status for check in checks}


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
    checks = statuses(verify.verify("tiny", overrides={"mask_id": 500, "eos_ids": (501,)}))
    assert checks["mask id"] == checks["end id"] == "wrong"
    assert run(["verify", "tiny", "--mask-id", "500"]) == 1
    assert "wrong    mask id" in capsys.readouterr().out


def test_decodes_that_differ_are_seen(monkeypatch):
    generate, calls = dlm.Engine.generate, []

    def moody(self, prompt, **options):
        calls.append(1)
        return generate(self, prompt, **options, seed=len(calls), temperature=2.0)

    monkeypatch.setattr(dlm.Engine, "generate", moody)
    found = [c for c in verify.verify("tiny") if c.name == "decode"]
    assert "wrong" in {check.status for check in found}


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
