"""Cache policies in comparison: every one is there, and binds."""

import pytest

import dlm
from dlm.cli.app import run as call
from dlm.evals.caches import cache_settings
from dlm.evals.results import results_of
from dlm.evals.run import read_run
from dlm.evals.summary import Answers, compare


@pytest.mark.parametrize("model", ["tiny", "tiny-block"])
def test_every_setting_binds_and_the_first_computes_everything(model):
    looked_at = dlm.inspect(model)
    settings = cache_settings(looked_at.info.attention, "topk")
    for setting in settings:
        looked_at.explain(**setting.options)
    assert settings[0].name == "none"


def test_every_policy_is_there():
    named = {
        s.name.partition("(")[0]
        for a in ("full", "block_causal")
        for s in cache_settings(a, "topk")
    }
    assert named == set(dlm.KINDS["cache"].names())


def test_agreement_counts_equal_texts():
    base = Answers({("a", 0): True, ("b", 0): True, ("b", 1): True}, {("a", 0): "x", ("b", 0): "y"})
    other = Answers({("a", 0): True, ("b", 0): False}, {("a", 0): "x", ("b", 0): "z"})
    (found,) = compare({"math": base}, {"fast": {"math": other}})
    assert (found.same, found.paired.difference) == (0.5, -0.5)


def test_a_run_from_the_command_line(tmp_path, capsys):
    folder = tmp_path / "run"
    assert call(["eval", "caches", "--tasks", "format", "--limit", "2", "--out", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "same text" in text
    assert "positions" in text
    results = results_of(read_run(folder))
    cost = {figures.setting: figures.token_forwards for figures in results.figures}
    assert cost["dual"] <= cost["prefix"] <= cost["none"]
