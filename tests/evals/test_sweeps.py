"""Sweeps: what they hold, and what a report makes of them."""

import json
import random

import pytest

import dlm
from dlm.cli.app import run as call
from dlm.errors import InvalidRequest
from dlm.evals.sampling import Sample
from dlm.evals.settings import Setting
from dlm.evals.statistics import Interval, Paired
from dlm.evals.strategies import BASELINE, SWEEPS, sweep_settings
from dlm.evals.summary import Comparison, Figures
from dlm.evals.sweeps import at_equal_cost, marks_of, sweeps_of

LEFT_OUT = {"everything": "it needs an editor to take back what is too much"}


def test_every_setting_binds():
    looked_at = dlm.inspect("tiny")
    for setting in sweep_settings():
        looked_at.explain(**setting.options, max_new_tokens=96)


def test_every_rule_and_schedule_is_there():
    texts = " ".join(text for sweep in SWEEPS.values() for text in sweep.values())
    for kind in ("unmask", "blocks"):
        for name in dlm.KINDS[kind].names():
            assert (f"{kind}={name}" in texts) != (name in LEFT_OUT), name


def test_settings_have_names_of_their_own():
    settings = sweep_settings()
    assert settings[0].name == BASELINE
    assert len({s.name for s in settings}) == len(settings)
    assert sweep_settings(["leap"])[0].name == BASELINE
    with pytest.raises(InvalidRequest, match=r"'adaptive', .* got 'nope'"):
        sweep_settings(["nope"])


def marks(rights, nfe):
    return {f"i{n}": (right, nfe) for n, right in enumerate(rights)}


def test_equal_cost_is_read_between_neighbours():
    """10 items; 2 to 8 forwards; at 4 = sqrt(2 * 8) the lines are halfway in NFE, not in log."""
    first = [marks([True] * 4 + [False] * 6, 2), marks([True] * 10, 8)]
    second = [marks([True] * 2 + [False] * 8, 2), marks([True] * 8 + [False] * 2, 8)]
    found = at_equal_cost(first, second)
    assert [round(at.nfe, 3) for at in found] == [2.828, 4.0, 5.657]
    for at in found:
        share = (at.nfe - 2) / 6
        assert at.difference == pytest.approx((0.4 + 0.6 * share) - (0.2 + 0.6 * share))
        assert at.interval.low <= at.difference <= at.interval.high


def test_nothing_is_read_where_costs_do_not_meet():
    one, other = marks([True], 2), marks([True], 5)
    assert at_equal_cost([one], [one, other]) == []
    assert at_equal_cost([one, marks([True], 3)], [other, marks([True], 9)]) == []


def test_the_bootstrap_band_covers():
    """Of 120 simulated pairs of sweeps with a true difference of 0.1, about 95% cover it."""
    covered = 0
    for seed in range(120):
        rng = random.Random(seed)
        drawn = [[rng.random() < p for _ in range(80)] for p in (0.5, 0.7, 0.4, 0.6)]
        first, last, other_first, other_last = drawn
        ours = [marks(first, 2), marks(last, 6)]
        theirs = [marks(other_first, 2), marks(other_last, 6)]
        low, high = at_equal_cost(ours, theirs, seed=seed)[1].interval
        covered += low <= 0.1 <= high
    assert 106 <= covered <= 120


def figures(name, accuracy, tpf, nfe):
    zero = Interval(0.0, 1.0)
    return Figures(name, "math", 100, 1, accuracy, zero, {}, None, nfe, tpf, 30, 900, 0, 0, 0, 0)


def comparison(name, difference, low):
    return Comparison(name, "math", Paired(difference, Interval(low, 0.1), 1, 1, 0.5), 1.0, 1.0)


def test_the_fastest_setting_that_loses_nothing():
    settings = [Setting("slow", sweep="slow"), *(Setting(n, sweep="fast") for n in ("a", "b", "c"))]
    rows = [figures("slow", 0.8, 1.0, 30), figures("a", 0.8, 2.0, 15),
            figures("b", 0.79, 4.0, 8), figures("c", 0.6, 9.0, 4)]  # fmt: skip
    told = [comparison("a", 0, -0.01), comparison("b", -0.01, -0.029), comparison("c", -0.2, -0.3)]
    cells = {(name, "math"): marks([True, False], n) for n, name in enumerate(("slow", *"abc"), 1)}
    slow, fast = sweeps_of(settings, rows, told, cells)
    assert slow.fastest.setting == "slow"
    assert fast.fastest.setting == "b"
    assert fast.dropped == 1
    # AUP: 2 * 80 and a trapezoid to (4, 79); weights exp(-3 (1 - y / 80))
    assert fast.aup == pytest.approx(160 + 0.5 * 2 * (80 + 79 * 2.718281828 ** (-3 / 80)), rel=1e-6)
    assert slow.aup == pytest.approx(80)
    assert fast.against == [], "the reference is not compared with itself"


def test_marks_are_those_of_first_samples():
    def sample(item, index, nfe):
        return Sample(item, index, "", "stop", 9, nfe, 0, 0, 99, 0.1, 0)

    found = marks_of([sample("a", 0, 4), sample("a", 1, 5), sample("b", 0, 6)], {("a", 0): True})
    assert found == {"a": (True, 4)}


def test_the_command_reports_sweeps_and_goes_on(tmp_path, capsys):
    out = tmp_path / "run"
    command = ["eval", "strategies", "--tasks", "sudoku", "--limit", "3", "--out", str(out)]
    assert call([*command, "--sweeps", "threshold,sliding", "--quiet"]) == 0
    results = json.loads((out / "results.json").read_text())
    assert [sweep["sweep"] for sweep in results["sweeps"]] == [BASELINE, "threshold", "sliding"]
    table = (out / "table.md").read_text()
    assert "| sweep | AUP |" in table
    assert (out / "plot.png").stat().st_size > 5000
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*.samples.jsonl")}
    assert call(["eval", "report", str(out)]) == 0
    assert call([*command, "--sweeps", "threshold,sliding", "--quiet"]) == 0
    assert {path: path.stat().st_mtime_ns for path in files} == files, "nothing is drawn twice"
    assert (out / "table.md").read_text() == table
    assert call([*command, "--sweeps", "nope"]) == 2
    assert "`sweeps`: must be one of" in capsys.readouterr().err
