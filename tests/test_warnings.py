"""Warnings: two mask ids, and messages that a chat template leaves out."""

import json
import shutil
import warnings
from pathlib import Path

import pytest

import dlm
from dlm.cli import run
from dlm.evals.verify import verify
from tests.helpers import PARITY

TINY = Path(dlm.__file__).parent / "model" / "bundled" / "tiny"
SYSTEM = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]


@pytest.fixture
def copied(tmp_path):
    """A copy of the bundled model, with changes to its config.json."""

    def copied(**changes):
        folder = tmp_path / "copy"
        shutil.copytree(TINY, folder, dirs_exist_ok=True)
        (folder / "verify.json").unlink()
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))
        return folder

    return copied


def test_a_mask_id_that_the_tokenizer_contradicts(copied, capsys):
    folder = copied(mask_token_id=5)
    told = "the mask id is 5 ('<|user|>') by config.json, and 4 ('<|mask|>') by the tokenizer"
    with pytest.warns(UserWarning, match=r"5 \('<\|user\|>'\) by config.json") as caught:
        dlm.load(folder, device="cpu")
    assert str(caught[0].message).startswith(told)
    assert str(caught[0].message).endswith("try overrides={'mask_id': 4} (--mask-id 4)")
    assert run(["generate", "hello", "--model", str(folder), "--quiet"]) == 0
    err = capsys.readouterr().err
    assert err.startswith(f"dlm: warning: {told}")
    assert err.count("\n") == 1
    with pytest.warns(UserWarning, match="by the tokenizer"):
        (check,) = (c for c in verify(folder, device="cpu") if c.name == "mask id")
    assert (check.status, check.detail.startswith(told)) == ("wrong", True)


def test_a_mask_id_that_was_chosen_or_fits_is_no_reason_to_warn(copied):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dlm.load(copied(mask_token_id=5), device="cpu", overrides={"mask_id": 4})
        dlm.inspect(copied(mask_token_id=5), overrides={"mask_id": 5})
        for name in dlm.bundled_names():
            assert dlm.inspect(name).mask_conflict == ""
        assert dlm.inspect(PARITY / "models" / "llada").mask_conflict == "", "no tokenizer"


def test_a_system_message_that_the_template_drops(capsys):
    engine = dlm.load("tiny", device="cpu")
    with pytest.warns(UserWarning, match=r"the whole of messages\[0\] \(system\)$"):
        answer = engine.generate(SYSTEM, max_new_tokens=16)
    assert answer.canvas == engine.generate("hello", max_new_tokens=16).canvas
    assert run(["generate", "hello", "--system", "be kind", "--quiet"]) == 0
    assert capsys.readouterr().err == (
        "dlm: warning: the chat template does not show the model the whole of "
        "messages[0] (system)\n"
    )


def test_messages_that_reach_the_model_are_no_reason_to_warn():
    text = dlm.load("tiny", device="cpu").text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text.encode_prompt([{"role": "user", "content": " spaces <|mask|> around \n"}])
        text.encode_prompt([*SYSTEM[1:], {"role": "assistant", "content": "Hel"}])
    turns = [*SYSTEM[1:], {"role": "assistant", "content": "Hello."}, SYSTEM[1] | {"content": "x"}]
    assert text.left_out(turns) == ["messages[0] (user)", "messages[1] (assistant)"]


def test_warnings_of_others_are_shown_as_they_are(monkeypatch, capsys):
    def warn():
        warnings.warn("of somebody else", stacklevel=1)
        return ("tiny",)

    monkeypatch.setattr("dlm.bundled_names", warn, raising=False)
    with pytest.warns(UserWarning, match="of somebody else"):
        assert run(["info"]) == 0
    assert capsys.readouterr().err == ""
