"""A folder holds the answers of one run: whatever decides them is told apart, all else is not."""

import fcntl
import json
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import dlm
from dlm.cli.app import run as call
from dlm.errors import InvalidRequest
from dlm.evals import verdicts
from dlm.evals.header import HEADER, identity_of, read_header
from dlm.evals.identity import (
    code_identity,
    code_of,
    differences,
    files_digest,
    in_words,
    rules_identity,
)
from dlm.evals.items import bundled_items
from dlm.evals.report import table, timed_alone
from dlm.evals.results import results_of
from dlm.evals.run import Run, bundled_run, read_run
from dlm.evals.sampling import Plan, draw_samples, read_samples
from dlm.evals.settings import Setting
from dlm.evals.verdicts import grade_samples, grader_digest, read_marks, valid_marks
from dlm.unmasking.unmask.threshold import Threshold
from tests.evals.scripted import Scripted

BUNDLED = Path(dlm.__file__).parent / "model" / "bundled" / "tiny"
RULE = """
from dataclasses import dataclass
from dlm.unmasking.unmask.threshold import Threshold
{imports}

@dataclass(frozen=True)
class Mine(Threshold):
    threshold: float = {level}
"""


@dataclass(frozen=True)
class Held(Threshold):
    """A rule of this file, given as an object."""


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A folder of a user's modules: `write(name, source)`; they are imported anew each time."""
    folder = tmp_path / "user"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    written = []

    def write(name, source):
        path = folder.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        written.append(name.partition(".")[0])
        for known in [m for m in sys.modules if m.partition(".")[0] in written]:
            del sys.modules[known]

    yield write
    for known in [m for m in sys.modules if m.partition(".")[0] in written]:
        del sys.modules[known]


def answered(out, *more, model="tiny"):
    command = ["eval", "bundled", "--tasks", "format", "--limit", "2", "--quiet"]
    return call([*command, "--model", str(model), "--out", str(out), *more])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert answered(folder) == 0
    return folder


@pytest.fixture
def done(finished, tmp_path):
    """The folder of a finished run, a copy of its own."""
    return shutil.copytree(finished, tmp_path / "run")


def refused(capsys):
    shown = capsys.readouterr().err.strip()
    assert shown.count("\n") == 0, "one line"
    assert "choose another --out, or delete it" in shown
    return shown


# own rules


def test_a_rule_that_was_edited_is_another_run(tmp_path, user, capsys, monkeypatch):
    user("my_rule", RULE.format(imports="", level=0.9))
    more = ["--config", "mine: unmask=my_rule:Mine, max_new_tokens=32"]
    assert answered(tmp_path / "run", *more) == 0
    before = (tmp_path / "run" / "table.md").read_bytes()
    assert answered(tmp_path / "run", *more) == 0, "the same rule goes on"
    user("my_rule", RULE.format(imports="", level=0.1))
    monkeypatch.setattr(dlm, "load", lambda *a, **k: pytest.fail("a model was loaded"))
    capsys.readouterr()
    assert answered(tmp_path / "run", *more) == 2
    told = refused(capsys)
    assert "holds a run with other rules (rules.my_rule.sources: " in told
    assert (tmp_path / "run" / "table.md").read_bytes() == before


def test_an_interrupted_run_does_not_go_on_with_another_rule(tmp_path, user, capsys):
    user("my_rule", RULE.format(imports="", level=0.9))
    more = ["--config", "mine: unmask=my_rule:Mine, max_new_tokens=32"]
    assert answered(tmp_path / "run", *more) == 0
    path = tmp_path / "run" / "mine" / "format.samples.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    user("my_rule", RULE.format(imports="import math", level=0.9))
    assert answered(tmp_path / "run", *more) == 2
    refused(capsys)
    assert len(read_samples(path)) == 1


@pytest.mark.parametrize(
    "where", ["from {p}helper import LEVEL", "def late():\n    import {p}helper"]
)
def test_what_a_rule_imports_belongs_to_it(user, where):
    """From beside it, from the package it is in, and inside functions."""
    for module, prefix in (("loose", ""), ("packed.rule", "packed."), ("packed.rule", ".")):
        if prefix == "." and not where.startswith("from"):
            continue
        helper = "helper" if not prefix else "packed.helper"
        user(helper, "LEVEL = 0.9")
        if prefix:
            user("packed.__init__", "")
        user(module, RULE.format(imports=where.format(p=prefix), level=0.9))
        setting = Setting("mine", {"unmask": f"{module}:Mine"})
        first = rules_identity([setting])
        assert rules_identity([setting]) == first
        user("unrelated", "X = 1")
        assert rules_identity([setting]) == first
        user(helper, "LEVEL = 0.8")
        assert rules_identity([setting]) != first


def test_packages_count_by_their_version(user):
    more = "import hypothesis, json, torch\nif not json:\n    import no_such_package"
    user("my_rule", RULE.format(imports=more, level=0.5))
    (found,) = rules_identity([Setting("mine", {"unmask": "my_rule:Mine"})]).values()
    assert set(found["packages"]) == {"hypothesis", "torch"}
    assert all(found["packages"].values())


def test_objects_and_several_parts_are_looked_at(user):
    user("my_rule", RULE.format(imports="", level=0.5))
    told = rules_identity(
        [
            Setting("a", {"unmask": Held(0.5), "stop": ["a: b", "eos", "my_rule:Mine"]}),
            Setting("b", {"unmask": "topk", "stop": "my: Text", "preset": "fast"}),
        ]
    )
    assert list(told) == [__name__, "my_rule"]
    assert all(found["sources"] for found in told.values())
    assert rules_identity([Setting("b", {"unmask": Threshold(0.5), "edit": "rcr"})]) == {}


def test_a_source_that_cannot_be_read_never_is_the_same():
    made = dataclass(frozen=True)(type("Made", (Threshold,), {"__module__": "nowhere_at_all"}))
    found = rules_identity([Setting("a", {"unmask": made(0.5)})])
    assert found == {"nowhere_at_all": {"sources": None, "packages": {}}}
    assert differences({"rules": found}, {"rules": found})


# models, tokenizers, items and the rest


def test_a_checkpoint_overwritten_in_place_is_another_one(tmp_path, capsys):
    model = shutil.copytree(BUNDLED, tmp_path / "model")
    assert answered(tmp_path / "run", model=model) == 0
    moved = shutil.copytree(model, tmp_path / "moved")
    assert answered(tmp_path / "run", model=moved) == 0, "its name decides nothing"
    (weights,) = model.glob("*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-2000:-1000] = bytes(1000)
    weights.write_bytes(content)
    capsys.readouterr()
    assert answered(tmp_path / "run", model=model) == 2
    assert "with other model (model.sha256: " in refused(capsys)


def test_a_tokenizer_or_template_that_was_edited_is_another_one(tmp_path, capsys):
    model = shutil.copytree(BUNDLED, tmp_path / "model")
    assert answered(tmp_path / "run", model=model) == 0
    path = model / "tokenizer_config.json"
    told = json.loads(path.read_text())
    template = told["chat_template"]
    told["chat_template"] = template.replace("<|user|>{{", "<|user|>Question: {{")
    assert told["chat_template"] != template
    path.write_text(json.dumps(told))
    capsys.readouterr()
    assert answered(tmp_path / "run", model=model) == 2
    assert "model.prompts.format: " in refused(capsys)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--dtype", "float64"], "model.dtype: torch.float32, now torch.float64"),
        (["--limit", "3"], "items.format.n: 2, now 3"),
        (["--samples", "2"], "samples: 1, now 2"),
        (["--rows", "2"], "rows: 1, now 2"),
        (["--config", "other: unmask=topk"], "settings.other: nothing, now "),
        (["--tasks", "math"], "items.math: nothing, now "),
        (["--model", "tiny-block", "--config", "a: unmask=topk"], "settings.a: nothing, now "),
        (["--causal", "tiny-ar"], "settings.autoregressive"),
    ],
)
def test_what_differs_is_said(more, told, done, capsys):
    capsys.readouterr()
    assert answered(done, *more) == 2
    assert told in refused(capsys)


def test_what_decides_nothing_may_differ(done):
    assert answered(done, "--threads", "2", "--workers", "1") == 0
    header = read_header(done)
    header["model"]["device"] = "cuda:0"
    other = json.loads(json.dumps(header))
    other["model"] |= {"device": "cuda:1", "name": "elsewhere"}
    other["machine"]["load"] = 99
    assert identity_of(header) == identity_of(other)
    other["model"]["device"] = "cpu"
    assert in_words(differences(identity_of(header), identity_of(other))) == (
        "model.device: cuda, now cpu"
    )


def test_the_code_that_decodes_belongs_to_a_run(done, capsys):
    header = read_header(done)
    assert header["code"] == code_identity()
    header["code"]["sources"] = "0" * 64
    header["code"]["torch"] = "2.0"
    (done / HEADER).write_text(json.dumps(header))
    assert answered(done) == 2
    told = refused(capsys)
    assert "code.sources: 00000000, now" in told
    assert "code.torch: 2.0, now" in told


DOCUMENTED = '''"""A module."""

import re

X = 1
"""A number."""


def f(x):
    """A function.

    Two lines, é.
    """

    return """text

    """ + x


class A:
    """A class."""
'''


def digest_of(folder, source):
    path = folder / "module.py"
    path.write_text(source, "utf-8")
    return files_digest([path], folder)


def test_docstrings_change_no_digest(tmp_path):
    before = digest_of(tmp_path, DOCUMENTED)
    assert code_of(tmp_path / "module.py") == (
        b'import re\n\nX = 1\n\ndef f(x):\n    return """text\n\n    """ + x\n\n\nclass A:\n'
    )
    other = DOCUMENTED
    for text in ("A module.", "A number.", "Two lines, é.", "A class."):
        assert text in other
        other = other.replace(text, f"{text}\n\n    More.")
    assert digest_of(tmp_path, other) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("X = 1", "X = 2"),
        ('"""text', '"""texts'),
        ('text\n\n    """', 'text\n    """'),
        ('"""A number."""', '"""A number."""; X = 2'),
        ('"""A class."""', '"""A class."""\n    x = 1'),
    ],
)
def test_code_changes_a_digest(old, new, tmp_path):
    assert old in DOCUMENTED
    before = digest_of(tmp_path, DOCUMENTED)
    assert digest_of(tmp_path, DOCUMENTED.replace(old, new)) != before


def test_a_broken_source_counts_as_it_is(tmp_path):
    assert digest_of(tmp_path, 'x = (\n"""a"""') != digest_of(tmp_path, 'x = (\n"""b"""')


def test_a_run_of_an_older_dlm_does_not_go_on(done, capsys):
    header = read_header(done)
    del header["format"]
    (done / HEADER).write_text(json.dumps(header))
    capsys.readouterr()
    assert answered(done) == 2
    assert "a run of an older dlm" in refused(capsys)
    assert call(["eval", "report", str(done)]) == 0, "but it can be read"


def test_sessions_are_kept_and_their_times_not_mixed(tmp_path):
    engine = dlm.load("tiny", device="cpu")
    setting = Setting("a", {"unmask": "topk", "max_new_tokens": 16})
    run = bundled_run(tmp_path, [setting], tasks=["format"], limit=2)
    assert len(run.open(engine)["sessions"]) == 1
    header = run.open(engine)
    assert len(header["sessions"]) == 2, "nothing was drawn yet"
    run.generate(engine, lambda *told: None)
    run.grade()
    assert len(run.open(engine)["sessions"]) == 2, "nothing is left to draw"
    assert timed_alone(read_header(tmp_path))
    assert "tokens/s" in table(results_of(run))
    header["sessions"][1]["machine"]["threads"] += 1
    (tmp_path / HEADER).write_text(json.dumps(header))
    assert "tokens/s" not in table(results_of(run))


# verdicts


def graded(tmp_path, text="no"):
    (item,) = bundled_items("format", "test", 1)
    files = tmp_path / "s.jsonl", tmp_path / "v.jsonl"
    files[0].unlink(missing_ok=True)
    draw_samples(Scripted({item.prompt: text}), Plan([item], Setting("s")), files[0])
    return item, files


def test_another_grader_judges_again(tmp_path, monkeypatch):
    item, files = graded(tmp_path)
    assert grade_samples([item], *files) == {(item.id, 0): False}
    assert grade_samples([item], *files) == {(item.id, 0): False}
    assert len(files[1].read_text().splitlines()) == 1, "judged once"
    monkeypatch.setattr(type(item), "grade", lambda item, text: True)
    assert grade_samples([item], *files, grader="another") == {(item.id, 0): True}
    assert read_marks(files[1])[item.id, 0].right, "the last verdict counts"
    samples = read_samples(files[0])
    assert valid_marks(files[1], samples, "another")
    assert not valid_marks(files[1], samples, grader_digest())
    assert grader_digest("bwrap") != grader_digest()


def test_verdicts_without_a_seal_and_of_other_answers_do_not_count(tmp_path):
    item, files = graded(tmp_path)
    grade_samples([item], *files)
    line = json.loads(files[1].read_text())
    del line["seal"]
    files[1].write_text(json.dumps(line | {"right": True}) + "\n")
    assert grade_samples([item], *files) == {(item.id, 0): False}
    _, files = graded(tmp_path, item.answer)  # answered anew, beside the old verdict
    assert grade_samples([item], *files) == {(item.id, 0): True}


def test_the_report_judges_again_what_older_graders_judged(done, capsys, monkeypatch):
    old = (done / "table.md").read_text()
    run = read_run(done)
    assert not run.ungraded()
    monkeypatch.setattr(verdicts, "version_of", lambda name: "another")
    assert run.ungraded()
    assert call(["eval", "report", str(done)]) == 0
    assert not run.ungraded()
    assert (done / "table.md").read_text() == old


# two at once, and items


def test_two_processes_do_not_answer_into_one_folder(tmp_path):
    item, (path, _) = graded(tmp_path)
    plan = Plan([item], Setting("s"), samples=2)
    with path.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InvalidRequest, match="being written by another process"):
            draw_samples(Scripted({item.prompt: "no"}), plan, path)
        assert len(read_samples(path)) == 1, "reading is no writing"
    draw_samples(Scripted({item.prompt: "no"}), plan, path)
    assert len(read_samples(path)) == 2


def test_items_have_ids_of_their_own(tmp_path):
    one, two = bundled_items("format", "test", 2)
    with pytest.raises(InvalidRequest, match=f"two have the id '{one.id}'"):
        Run(tmp_path, {"format": [one, replace(two, id=one.id)]}, [Setting("a")])


def test_answers_that_nothing_is_known_of_are_not_taken_over(done, capsys):
    (done / HEADER).unlink()
    capsys.readouterr()
    assert answered(done) == 2
    assert "holds answers of which no run.json says what gave them" in refused(capsys)


def test_nothing_is_left_of_a_refusal(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert answered("new/folder", "--config", "x: cache=block_causal") == 2
    assert os.listdir() == []
