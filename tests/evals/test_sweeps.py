"""Sweeps: what they hold, and what a report makes of them."""

import json
import random
from dataclasses import replace

import pytest

import dlm
from dlm.cli.app import run as call
from dlm.errors import InvalidRequest
from dlm.evals.report_sweeps import sweep_lines
from dlm.evals.sampling import Sample
from dlm.evals.settings import Setting
from dlm.evals.statistics import Interval, bootstrap, paired, unseen
from dlm.evals.strategies import BASELINE, SWEEPS, sweep_settings
from dlm.evals.summary import Comparison, Figures
from dlm.evals.sweeps import FEWEST, Mark, at_equal_cost, marks_of, sweeps_of

LEFT_OUT = {
    "guided": "it reads a causal model",
    "verified": "it needs a model with trained blocks",
    "limit": "it caps other editors",
    "reconsider": "it is for warm starts",
}


def test_every_setting_binds():
    looked_at = dlm.inspect("tiny")
    for setting in sweep_settings():
        looked_at.explain(**setting.options, max_new_tokens=96)


def test_every_rule_and_schedule_is_there():
    texts = " ".join(text for sweep in SWEEPS.values() for text in sweep.values())
    for kind in ("unmask", "blocks", "edit"):
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
    """Of 60 simulated pairs of sweeps with a true difference of 0.1, about 95% cover it."""
    covered = 0
    for seed in range(60):
        rng = random.Random(seed)
        drawn = [[rng.random() < p for _ in range(80)] for p in (0.5, 0.7, 0.4, 0.6)]
        first, last, other_first, other_last = drawn
        ours = [marks(first, 2), marks(last, 6)]
        theirs = [marks(other_first, 2), marks(other_last, 6)]
        low, high = at_equal_cost(ours, theirs, seed=seed)[1].interval
        covered += low <= 0.1 <= high
    assert 53 <= covered <= 60


def sweep_of(names, right, nfe, tokens, n=200, task="math"):
    """Settings with so many of `n` items right, at constant cost: figures, comparisons, marks."""
    rows, told, cells = [], [], {}
    for name, hits, spent, made in zip(names, right, nfe, tokens, strict=True):
        zero = Interval(0.0, 1.0)
        costs = (spent, made / spent, made, 900, 0, 0, 0, 0)
        rows.append(Figures(name, task, n, 1, hits / n, zero, {}, None, *costs))
        pair = paired([i < right[0] for i in range(n)], [i < hits for i in range(n)])
        told.append(Comparison(name, task, pair, 1.0, 1.0))
        cells[name, task] = {f"i{i}": Mark(float(i < hits), spent, made) for i in range(n)}
    return rows, told[1:], cells


SLOW = Setting("slow", sweep="slow")
FAST = [Setting(name, sweep="fast") for name in ("a", "b", "c")]


def test_the_fastest_setting_that_loses_nothing():
    rows, told, cells = sweep_of(("slow", *"abc"), (160, 160, 159, 120), (30, 15, 8, 4), [30] * 4)
    slow, fast = sweeps_of([SLOW, *FAST], rows, told, cells)
    assert slow.fastest.setting == "slow"
    assert fast.fastest.setting == "b"
    assert fast.dropped == 1
    # AUP: 2 * 80 and a trapezoid to (3.75, 79.5); weights exp(-3 (1 - y / 80))
    last = 79.5 * 2.718281828 ** (-3 * (1 - 79.5 / 80))
    assert fast.aup == pytest.approx(160 + 0.5 * 1.75 * (80 + last), rel=1e-6)
    assert slow.aup == pytest.approx(80)
    assert fast.interval.low < fast.aup < fast.interval.high
    assert slow.interval.low == pytest.approx(100 * bootstrap([1.0] * 160 + [0.0] * 40).low, abs=1)
    assert fast.against == [], "the reference is not compared with itself"
    assert fast.n == 200


@pytest.mark.parametrize("n", [1, 2, 60, FEWEST - 1])
def test_too_few_items_name_no_fastest_setting(n):
    """Although all of them agree, a loss of three points could be behind that."""
    rows, told, cells = sweep_of(("slow", *"abc"), [n] * 4, (30, 15, 8, 4), [30] * 4, n)
    found = sweeps_of([SLOW, *FAST], rows, told, cells)
    assert [sweep.fastest for sweep in found] == [None, None]
    assert all(sweep.interval.low < sweep.aup for sweep in found)
    assert "too few items" in "\n".join(sweep_lines(found))


def test_enough_items_that_all_agree_name_one():
    n = FEWEST
    rows, told, cells = sweep_of(("slow", *"abc"), [n] * 4, (30, 15, 8, 4), [30] * 4, n)
    assert sweeps_of([SLOW, *FAST], rows, told, cells)[1].fastest.setting == "c"


def test_sweeps_keep_to_the_items_that_all_have():
    """Of an interrupted run: one setting has half of its answers, another one none."""
    rows, told, cells = sweep_of(("slow", *"abc"), [100] * 4, (30, 15, 8, 4), [30] * 4, 200)
    half = list(cells["b", "math"])[:100]
    cells["b", "math"] = {item: cells["b", "math"][item] for item in half}
    cells["c", "math"] = {}
    rows[3] = replace(rows[3], n=0, accuracy=float("nan"), tpf=float("nan"))
    slow, fast = sweeps_of([SLOW, *FAST], rows, told, cells)
    assert slow.n == fast.n == 100
    assert slow.aup == 100.0, "the first hundred are right"
    nothing = [replace(row, n=0, tpf=float("nan")) for row in rows]
    assert sweeps_of([SLOW, *FAST], nothing, told, {key: {} for key in cells}) == []


def test_equal_curves_of_few_items_are_not_told_apart():
    first = [marks([True] * 3, 2), marks([True] * 3, 8)]
    for at in at_equal_cost(first, first):
        assert at.difference == 0
        assert at.interval == pytest.approx((-unseen(3), unseen(3)))


def test_marks_are_the_shares_of_all_judged_samples():
    def sample(item, index, nfe):
        return Sample(item, index, "", "stop", 9, nfe, 0, 0, 99, 0.1, 0)

    samples = [sample("a", 0, 4), sample("a", 1, 6), sample("a", 2, 8), sample("b", 0, 6)]
    found = marks_of(samples, {("a", 0): True, ("a", 1): False})
    assert found == {"a": (0.5, 5, 9)}


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
