"""Searches in comparison: curves of hand-made trials, runs on a tiny model, the command."""

import json
import math
import shlex
from dataclasses import replace

import numpy as np
import pytest

import dlm
from dlm.cli.app import run as call
from dlm.errors import InvalidRequest
from dlm.evals.items import Item
from dlm.evals.search import curves
from dlm.evals.search.figures import all_figures, figures_of
from dlm.evals.search.judges import Judgement, judge_figures
from dlm.evals.search.methods import FIXED, baselines, default_methods, panel, parse_method
from dlm.evals.search.problems import LADDERS, problems
from dlm.evals.search.run import SearchRun
from dlm.evals.search.trials import Found, Trial, read_trials
from dlm.search.searcher import parse_policy
from dlm.search.verifiers.parsing import parse_verifier

BUDGETS = np.array([5.0, 10, 20, 30, 40, 100])


def trial(item, *answers, best=None, nfe=None):
    """A search whose answers are (nfe, right); by default each is better than those before."""
    found = [Found(f"{nfe} {right}", nfe, 0.0, right) for nfe, right in answers]
    best = best or [(nfe, place) for place, (nfe, _) in enumerate(answers)]
    return Trial(item, found, best, nfe or answers[-1][0], 0, 1, 1, 0, len(found), 0, "done")


@pytest.fixture(scope="module")
def engine():
    return dlm.load("tiny", device="cpu", max_rows=64)


# Problems


@pytest.mark.parametrize("task", ["countdown", "sudoku"])
@pytest.mark.parametrize("split", ["dev", "test"])
def test_problems_are_of_the_ladder_and_differ(task, split):
    found = problems(task, split, 60)
    assert len({item.prompt for item in found}) == len({item.id for item in found}) == 60
    assert all(LADDERS[task].holds(item) for item in found)


def test_more_problems_than_the_bundled_set_has_are_drawn_and_stay_the_same():
    few, many = problems("sudoku", "dev", 82), problems("sudoku", "dev", 84)
    assert many[:82] == few
    assert [item.id for item in many[-3:]] == [f"sudoku-dev-more-{n:04}" for n in (81, 82, 83)]
    assert all(item.grade(item.answer) for item in many[-3:])
    assert not {i.prompt for i in many} & {i.prompt for i in problems("sudoku", "test", 200)}


def test_code_is_asked_with_an_example():
    assert all(">>>" in item.prompt for item in problems("code", "test", 40))


# Methods


def test_a_method_needs_a_search_and_known_options():
    method = parse_method("mine: search=best_of(3, width=1), temperature=0.7")
    assert method.name == "mine"
    assert method.options == {"search": "best_of(3, width=1)", "temperature": 0.7}
    with pytest.raises(InvalidRequest, match="must name its `search`"):
        parse_method("temperature=0.7")
    with pytest.raises(InvalidRequest, match="`config`"):
        parse_method("search=best_of, tempo=1")


def test_all_methods_share_sampler_and_verifier():
    for method in default_methods("countdown", "temperature=0.5, unmask=topk"):
        assert method.options["temperature"] == 0.5
        assert (method.options["unmask"], method.options["verifier"]) == ("topk", "rules")
    few = default_methods("sudoku", "temperature=0.5", most=5)
    assert few[0].options["search"] == "best_of(5, width=1)"
    named = default_methods("sudoku", "temperature=0.5", ["tree"])
    assert [one.name for one in named] == ["best_of", FIXED, "tree"]


def test_short_answers_vote_where_no_rules_judge():
    math = {one.name: one.options for one in default_methods("math", "temperature=1.0")}
    assert {"vote", "vote to its end", "hex", "temporal_vote"} <= set(math)
    assert (math["vote"]["verifier"], math["best_of"]["verifier"]) == (None, "confidence")
    assert FIXED not in math, "nothing settles a search there"
    few = default_methods("math", "temperature=1.0", few=True)
    assert [one.name for one in few] == list(baselines("math")) == ["vote", "vote to its end"]
    assert "vote" not in {one.name for one in default_methods("sudoku", "temperature=1.0")}
    with pytest.raises(InvalidRequest, match="`only`"):
        default_methods("sudoku", "temperature=1.0", ["vote"])


@pytest.mark.parametrize("task", LADDERS)
def test_default_methods_are_understood(task):
    for one in default_methods(task, "temperature=1.0"):
        policy = parse_policy(one.options["search"])
        assert isinstance(policy, dlm.Policy)
        parse_verifier(one.options["verifier"])


# Curves


def test_the_curve_is_that_of_the_best_answer_so_far():
    one = trial("a", (10, False), (20, True), (30, False), best=[(10, 0), (20, 1)], nfe=30)
    assert curves.right_at(one, BUDGETS).tolist() == [0, 0, 1, 1, 1, 1]
    found = curves.curve_of([{"a": one}], ["a"], BUDGETS)
    assert found.spent.tolist() == [5, 10, 20, 30, 30, 30]


def test_points_are_means_over_seeds_and_items():
    early, late = trial("a", (10, True)), trial("a", (20, False), (40, True))
    never = trial("b", (30, False))
    seeds = [{"a": early, "b": never}, {"a": late, "b": never}]
    found = curves.curve_of(seeds, ["a", "b"], BUDGETS)
    assert found.accuracy.tolist() == [0, 0.25, 0.25, 0.25, 0.5, 0.5]
    assert found.spent.tolist() == [5, 10, 17.5, 25, 27.5, 27.5]


def test_the_oracle_and_any_answer():
    one = trial("a", (10, False), (20, True), (40, False), (100, False), best=[(10, 0)])
    oracle = curves.oracle_of([{"a": one}], ["a"], BUDGETS)
    assert oracle.accuracy.tolist() == [0, 0, 1, 1, 1, 1]
    any_one = curves.random_pick([{"a": one}], ["a"], BUDGETS)
    assert any_one.accuracy.tolist() == [0, 0, 1 / 2, 1 / 2, 1 / 3, 1 / 4]


def test_what_is_read_from_a_curve():
    spent, right = np.array([10.0, 20, 40]), np.array([0.2, 0.4, 0.4])
    assert curves.nfe_to_reach(0.4, spent, right) == 20
    assert curves.nfe_to_reach(0.41, spent, right) == math.inf
    assert curves.at_nfe(15, spent, right) == pytest.approx(0.3)
    assert curves.at_nfe(9, spent, right) == 0
    assert curves.at_nfe(1000, spent, right) == 0.4
    assert curves.area(spent, np.full(3, 0.7), 10, 40) == pytest.approx(0.7)
    early = curves.area(np.array([10.0, 11, 40]), np.array([0.2, 0.4, 0.4]), 10, 40)
    assert early > curves.area(spent, right, 10, 40)


def test_bounds_come_from_the_resamples_and_hold_the_value():
    weights = curves.draws(50)
    assert weights.sum(axis=1) == pytest.approx(1)
    values = weights @ (np.arange(50) < 20)
    value, (low, high) = curves.estimated(values, 50, 0.0)
    assert value == pytest.approx(0.4)
    assert 0.2 < low < 0.4 < high < 0.6
    assert math.isinf(curves.estimated([1.0, *[math.inf] * 99]).interval.high)


# Figures


class Hand(SearchRun):
    """A run whose trials are given."""

    def trials(self, task, method):
        return GIVEN[method.name.replace("vote", "best_of")]

    def items(self, task):
        """Problems of two rungs."""
        rungs = ("odd" if n % 2 else "even" for n in range(len(ITEMS)))
        return [Item(name, task, rung, "", "", {}) for name, rung in zip(ITEMS, rungs, strict=True)]


ITEMS = [f"i{n}" for n in range(10)]


def of_all(make):
    return [{item: make(item, place) for place, item in enumerate(ITEMS)}]


GIVEN = {
    # Half of the items are right at once, and half of the others after eight answers.
    "best_of": of_all(
        lambda item, n: (
            trial(item, (10, True))
            if n % 2
            else trial(item, *((10 * k, k == 8 and n in (0, 2)) for k in range(1, 9)))
        )
    ),
    "best_of to its end": of_all(
        lambda item, n: trial(
            item,
            *((10 * k, bool(n % 2) or (k == 8 and n in (0, 2))) for k in range(1, 17)),
            best=[(10, 0), (80, 7)],
        )
    ),
    "quick": of_all(
        lambda item, n: (
            trial(item, (10, True))
            if n % 2
            else trial(item, (10, False), (12, n in (0, 2)), best=[(10, 0), (12, 1)])
        )
    ),
}


def test_figures_of_hand_made_trials(tmp_path):
    methods = [*default_methods("countdown", "temperature=1.0", few=True)]
    methods.append(parse_method("quick: search=best_of"))
    rows = {
        row.method: row for row in figures_of(Hand(tmp_path, {"countdown": methods}), "countdown")
    }
    base, fixed, quick = (rows[name] for name in GIVEN)
    assert base.accuracy[0] == 0.5
    assert [row.final.value for row in (base, fixed, quick)] == pytest.approx([0.7] * 3)
    assert (base.nfe, fixed.nfe) == (0.5 * 10 + 0.5 * 80, 160)
    assert base.match.value == pytest.approx(45, rel=0.03)
    assert quick.match.value == pytest.approx(11, rel=0.03)
    assert quick.of_fixed.value == pytest.approx(11 / 160, rel=0.03)
    assert quick.of_stopping.value == pytest.approx(11 / 45, rel=0.05)
    assert quick.area.value > base.area.value
    assert base.gain.value == base.gain_at_end.value == pytest.approx(0)
    assert quick.gain_at_end.value == pytest.approx(0)
    assert fixed.gain_at_end.value == pytest.approx(-0.2), "its eighth answers come later"
    assert rows["best_of, random pick"].final.value < 0.6


def test_votes_are_measured_against_votes(tmp_path):
    methods = default_methods("math", "temperature=1.0", few=True)
    rows = {row.method: row for row in figures_of(Hand(tmp_path, {"math": methods}), "math")}
    assert rows["vote"].match.value == pytest.approx(45, rel=0.03)
    assert rows["vote"].of_fixed.value == pytest.approx(45 / 160, rel=0.03)
    assert rows["vote"].of_stopping.value == 1
    assert list(rows) == ["vote", "vote to its end", "vote, random pick"]


def test_a_task_of_several_rungs_has_figures_of_each(tmp_path):
    methods = default_methods("countdown", "temperature=1.0", few=True)
    rows = all_figures(Hand(tmp_path, {"countdown": methods}), "countdown")
    titles = ["countdown", "countdown, even", "countdown, odd"]
    assert list(dict.fromkeys(row.task for row in rows)) == titles
    assert {row.task: row.n for row in rows} == dict(zip(titles, (10, 5, 5), strict=True))
    final = {row.task: row.final.value for row in rows if row.method == "best_of"}
    assert [final[title] for title in titles] == pytest.approx([0.7, 0.4, 1.0])


def test_figures_need_the_baselines(tmp_path):
    run = Hand(tmp_path, {"countdown": [parse_method("quick: search=best_of")]})
    with pytest.raises(InvalidRequest, match="must name the baseline 'best_of' too"):
        figures_of(run, "countdown")


# Runs


def small(folder, more=(), **options):
    methods = [*default_methods("sudoku", "temperature=1.0", few=True), *more]
    return SearchRun(folder, {"sudoku": methods}, limit=3, at_once=4, **options)


def drawn(run, engine):
    told = []
    run.open(engine)
    run.draw(engine, lambda task, method, trial: told.append((method.name, trial.item)))
    return told


def test_a_run_goes_on_and_gives_the_same_trials(engine, tmp_path):
    run = small(tmp_path / "a")
    assert len(drawn(run, engine)) == 6
    assert run.missing() == 0
    assert drawn(run, engine) == []
    method = run.methods["sudoku"][0]
    path = run.path("sudoku", method, 0)
    before, lines = read_trials(path), path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:1]) + lines[1][:50])
    assert len(drawn(run, engine)) == 2
    assert read_trials(path) == before
    assert run.seconds() > 0


def test_trials_are_the_same_alone_and_in_company(engine, tmp_path):
    many, alone = small(tmp_path / "many"), small(tmp_path / "alone")
    object.__setattr__(alone, "at_once", 1)
    drawn(many, engine)
    drawn(alone, engine)
    for method in many.methods["sudoku"]:
        (one,), (other,) = many.trials("sudoku", method), alone.trials("sudoku", method)
        for item, found in one.items():
            assert [a.text for a in found.answers] == [a.text for a in other[item].answers]
            assert found.nfe == other[item].nfe


def test_the_early_stop_changes_no_answer_before_it(engine, tmp_path):
    run = small(tmp_path)
    drawn(run, engine)
    (stopping,), (fixed,) = (run.trials("sudoku", method) for method in run.methods["sudoku"])
    for item, found in stopping.items():
        texts = [answer.text for answer in fixed[item].answers]
        assert len(texts) == 16
        first = [answer.text for answer in found.answers][:16]
        assert first == texts[: len(first)]
        assert found.nfe >= found.answers[-1].nfe
        assert all(a.right == (a.score == 1) for a in found.answers)


def test_the_forwards_of_a_verifier_count(engine, tmp_path):
    method = parse_method("own: search=best_of(2), verifier=self_verify, temperature=1.0")
    run = small(tmp_path, [method])
    drawn(run, engine)
    (found,) = run.trials("sudoku", method)
    for one in found.values():  # equal answers are judged once
        assert one.verifier_nfe == len({answer.text for answer in one.answers})
        assert one.nfe > one.verifier_nfe


def test_methods_may_be_added_but_not_changed(engine, tmp_path):
    drawn(small(tmp_path), engine)
    method = parse_method("two: search=best_of(2), temperature=1.0")
    assert {name for name, _ in drawn(small(tmp_path, [method]), engine)} == {"two"}
    other = parse_method("two: search=best_of(3), temperature=1.0")
    with pytest.raises(InvalidRequest, match="holds another run"):
        small(tmp_path, [other]).open(engine)
    with pytest.raises(InvalidRequest, match=r"`limit`: must be \d+ for .*, got 1:"):
        replace(small(tmp_path), limit=1).open(engine)


def test_methods_of_earlier_sessions_are_reported_too(engine, tmp_path):
    method = parse_method("two: search=best_of(2), temperature=1.0")
    drawn(small(tmp_path, [method]), engine)
    later = small(tmp_path)
    whole = later.whole(later.open(engine))
    assert [one.name for one in whole.methods["sudoku"]] == ["best_of", FIXED, "two"]
    rows = figures_of(whole, "sudoku")
    assert [row.method for row in rows] == ["best_of", FIXED, "two", "best_of, random pick"]
    path = later.path("sudoku", method, 0)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:1]))
    assert len(later.whole(later.open(engine)).methods["sudoku"]) == 2


def test_two_methods_of_one_name_are_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="two of 'sudoku' are called 'best-of'"):
        small(tmp_path, [parse_method("Best of: search=best_of")])


@pytest.mark.parametrize("change", [{"best": [[1, 9]]}, {"best": []}, {"answers": [{}]}])
def test_a_damaged_trial_is_refused(tmp_path, change):
    line = {
        "item": "a", "answers": [{"text": "", "nfe": 1, "score": None, "right": True}],
        "best": [[1, 0]], "nfe": 1, "verifier_nfe": 0, "launches": 1, "token_forwards": 1,
        "shared_forwards": 0, "verifier_calls": 1, "verifier_errors": 0, "reason": "done",
    }  # fmt: skip
    path = tmp_path / "trials.jsonl"
    path.write_text(json.dumps(line) + "\n")
    assert read_trials(path)["a"].answers[0].right
    path.write_text(json.dumps(line | change) + "\n")
    with pytest.raises(InvalidRequest, match="is no trial"):
        read_trials(path)


# Verifiers by themselves


def judged(item, right, **scores):
    return Judgement(item, right, scores, dict.fromkeys(scores, 1.0))


def test_the_figures_of_verifiers():
    found = [
        judged("a", [True, False], good=[2.0, 1.0], bad=[1.0, 2.0], flat=[0.0, 0.0]),
        judged("b", [False, True], good=[-3.0, -1.0], bad=[None, None], flat=[0.0, 0.0]),
        judged("c", [False, False], good=[0.0, 1.0], bad=[0.0, 1.0], flat=[0.0, 0.0]),
    ]
    rows = {row.verifier: row for row in judge_figures(found)}
    shares = {name: row.right.value for name, row in rows.items()}
    assert shares == pytest.approx(
        {"random": 1 / 3, "good": 2 / 3, "bad": 0, "flat": 1 / 3, "oracle": 2 / 3}
    )
    assert [rows[n].way.value for n in ("random", "good", "bad", "oracle")] == [0, 1, -1, 1]
    assert rows["bad"].failed == pytest.approx(1 / 3)


def test_all_verifiers_judge_the_same_answers(engine, tmp_path):
    judges = ["rules", "majority", "confidence", "pll"]
    methods = {"sudoku": [panel("sudoku", "temperature=1.0", judges)]}
    run = SearchRun(tmp_path, methods, limit=2, at_once=2)
    run.open(engine)
    found = run.judge(engine, "sudoku")
    assert run.judge(engine, "sudoku") == found
    for one in found:
        assert len(one.right) == 16
        assert list(one.scores) == judges
        assert [score == 1 for score in one.scores["rules"]] == one.right
        assert max(one.scores["majority"]) <= 1
        assert len(set(one.scores["majority"])) == 1 or max(one.scores["majority"]) > 1 / 16
        assert all(score < 0 for score in one.scores["pll"])
    assert found[0].costs == {"rules": 0, "majority": 0, "confidence": 0, "pll": 4}


def test_a_judgement_of_too_few_answers_is_refused():
    line = {"item": "a", "right": [True], "scores": {"x": []}, "costs": {"x": 0}}
    with pytest.raises(ValueError, match="has not judged all"):
        Judgement.parse(line)


# The command


def test_a_run_from_the_command_line(tmp_path, capsys):
    line = f"eval search --tasks sudoku --limit 3 --only neighbours --out {tmp_path}"
    assert call(shlex.split(line)) == 0
    told = capsys.readouterr().out
    assert "### sudoku (n = 3, 1 seed)" in told
    assert "| neighbours |" in told
    results = json.loads((tmp_path / "results.json").read_text())
    assert {row["method"] for row in results["figures"]} >= {"best_of", "neighbours"}
    assert results["cpu_seconds"] > 0
    assert results["header"]["split"] == "dev"
    for name in ("table.md", "curves.png", "oracle.png"):
        assert (tmp_path / name).stat().st_size


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--tasks long", "`tasks`"),
        ("--only hill", "`only`"),
        ("--split train", "`split`"),
        ("--limit 0", "`limit`"),
        ("--method 'a: search=hill'", "`search`"),
        ("--method 'a: search=best_of, verifier=hill'", "`verifier`"),
        ("--method 'a: temperature=1'", "must name its `search`"),
        ("--method 'a hill'", "`method`"),
        ("--sampler 'temperature=hot'", "`temperature`"),
        ("--sampler 'hill=1'", "`sampler`"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_a_model_is_loaded(
    line, told, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(dlm, "load", lambda *a, **k: pytest.fail("a model was loaded"))
    assert call(["eval", "search", *shlex.split(line), "--out", str(tmp_path / "x")]) == 2
    assert told in capsys.readouterr().err


def test_verifiers_from_the_command_line(tmp_path, capsys):
    line = f"eval verifiers --tasks sudoku --limit 2 --verifier rules --out {tmp_path}"
    assert call(shlex.split(line)) == 0
    told = capsys.readouterr().out
    assert "### sudoku (n = 2)" in told
    assert "| rules |" in told
    found = json.loads((tmp_path / "verifiers.json").read_text())["figures"]["sudoku"]
    assert [row["verifier"] for row in found] == ["random", "rules", "oracle"]
    assert found[1]["right"] == found[2]["right"]
