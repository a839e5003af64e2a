"""`dlm search`: answers, JSON, budgets, wrong arguments."""

import json
import re

import pytest

import dlm
from dlm.cli.search import progress

PROMPT = "Countdown: use 2 10 3 to make 9."
OPTIONS = ("--temperature", "1", "--max-new-tokens", "32", "--seed", "3")
SAME = {"temperature": 1.0, "max_new_tokens": 32, "seed": 3}


@pytest.fixture(scope="module")
def found():
    return dlm.load().search(PROMPT, "best_of(5, width=2)", **SAME)


def test_the_answer_and_one_line_about_it(call, found):
    code, out, err = call("search", PROMPT, "--search", "best_of(5, width=2)", *OPTIONS)
    assert (code, out) == (0, f"{found.text}\n")
    costs = found.costs
    shared = f"{costs.row_forwards} forwards (and {costs.shared_forwards} shared with another row)"
    told = f"score {found.score:.4g} · {shared} · 5 answers · "
    assert err.startswith(told), err
    assert err.endswith("done\n")
    assert call("search", PROMPT, "--quiet", *OPTIONS)[2] == ""


def test_json_has_answer_and_ledger(call, found):
    code, out, _ = call("search", PROMPT, "--search", "best_of(5, width=2)", *OPTIONS, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["text"] == found.text
    expected = found.summary()
    assert told["search"] == expected | {"seconds": told["search"]["seconds"]}
    assert told["config"]["temperature"] == 1.0


def test_a_budget_is_kept(call):
    asked = ("--budget", "nfe=15", "--budget", "seconds=100", "--json")
    told = json.loads(call("search", PROMPT, *OPTIONS, *asked)[1])
    assert told["search"]["nfe"] <= 15
    assert told["search"]["reason"] == "budget"


def test_a_target_ends_it(call):
    asked = ("--target", "-5", "--json", "--verifier", "confidence")
    told = json.loads(call("search", PROMPT, *OPTIONS, *asked)[1])
    assert told["search"]["reason"] == "target"
    assert told["search"]["candidates"] < 16


@pytest.mark.parametrize(
    ("param", "arguments"),
    [
        ("search", ("--search", "bestof")),
        ("search", ("--search", "best_of(m=2)")),
        ("search", ("--search", "best_of(0)")),
        ("search", ("--search", "best_of('x')")),
        ("n", ("--n", "4")),
        ("trace", ("--trace", "steps.jsonl")),
        ("budget.seconds", ("--budget", "seconds=0")),
        ("verifier", ("--temperature", "0", "--verifier", "confident")),
        ("budget.nfe", ("--temperature", "0", "--budget", "nfe=0")),
        ("verifier", ("--verifier", "confident")),
        ("budget", ("--budget", "nfe")),
        ("budget", ("--budget", "forwards=3")),
        ("budget.nfe", ("--budget", "nfe=many")),
        ("budget.nfe", ("--budget", "nfe=0")),
        ("budget.nfe", ("--budget", "nfe=1.5")),
        ("temperature", ("--temperature", "0")),
        ("unmask", ("--unmask", "nothing")),
        ("out", ("--out", "/nowhere/tree.json")),
        ("out", ("--out", "/")),
    ],
)
def test_wrong_arguments_are_refused_by_name(call, param, arguments):
    code, out, err = call("search", PROMPT, *OPTIONS, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"dlm: error: `{param}`"), err
    assert err.count("\n") == 1


def test_options_of_several_answers_are_not_in_the_help(call):
    code, out, _ = call("search", "--help")
    assert code == 0
    assert "--seed" in out
    assert not re.search(r"--(n|trace)\b", out)


def test_a_prompt_is_enough(call, tmp_path):
    """A policy that needs chance draws at temperature 1; one that needs none does not."""
    for policy, temperature in (("best_of(2)", 1.0), ("seeds(1)", 0.0)):
        code, out, _ = call("search", PROMPT, "--search", policy, "--json")
        assert code == 0
        assert json.loads(out)["config"]["temperature"] == temperature
    assert "for these it is 1 by default" in " ".join(call("search", "--help")[1].split())


def test_an_oracle_is_refused_in_words_of_the_command_line(call):
    code, _, err = call("search", PROMPT, *OPTIONS, "--verifier", "exact_answer('9')")
    assert (code, "`--allow-oracle`" in err) == (2, True)
    assert err.startswith("dlm: error: `verifier`: exact_answer knows")


def test_progress_is_one_line():
    engine = dlm.load()
    job = engine.prepare_search(PROMPT, dlm.SearchOptions("best_of(3)", budget={"nfe": 90}), SAME)
    lines = [progress(one, 90) for one in engine.search_steps(job)]
    assert lines[0] == "1 of 90 · 0 answers" or lines[0].startswith(("0 of", "3 of")), lines[0]
    assert re.fullmatch(r"\d+ of 90 · 3 answers · best -0\.\d+", lines[-1])
    assert "forward" in progress(job)


def test_ctrl_c_prints_what_there_is(call, monkeypatch, tmp_path):
    steps = dlm.Engine.step
    left = iter(range(13))

    def step(engine):
        if next(left, None) is None:
            raise KeyboardInterrupt
        steps(engine)

    monkeypatch.setattr(dlm.Engine, "step", step)
    file = tmp_path / "tree.json"
    code, out, err = call("search", PROMPT, *OPTIONS, "--out", file)
    assert code == 130
    assert out.strip()
    assert "abort" in err
    assert json.loads(file.read_text())["reason"] == "abort"
