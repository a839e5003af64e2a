"""`dlm eval --endpoint` gives the score of the local engine."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dlm.cli.app import run as call
from dlm.evals.benchmarks import benchmark_items, get_protocol
from dlm.evals.endpoint import Endpoint
from dlm.evals.sampling import Plan, answers
from dlm.evals.settings import Setting

FAST = "fast: preset=fast, max_new_tokens=96"
DRAWN = "drawn: unmask=topk, blocks=whole, steps=24, max_new_tokens=48, temperature=0.5, seed=3"
SETTINGS = [
    Setting("fast", {"preset": "fast", "max_new_tokens": 96}),
    Setting("aliases", {"max_new_tokens": 64, "block_length": 16, "threshold": 0.8}),
    Setting(
        "drawn",
        {
            "unmask": "topk",
            "steps": 24,
            "max_new_tokens": 48,
            "temperature": 0.7,
            "top_p": 0.9,
            "top_k": 20,
            "seed": 3,
            "logit_bias": {11: 1.5},
            "guide": "cfg(0.5)",
            "stop": ["eos", "prophet", "\n\n\n", "class ", "def ", "print(", "#", "if __name__"],
        },
    ),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
@pytest.mark.parametrize("protocol", ["llada", "base"])
def test_answers_are_those_of_the_engine(server, engine, protocol, setting):
    """Talks that are answered or gone on with, and texts; with every kind of option."""
    items = benchmark_items(get_protocol("humaneval", protocol), limit=5)
    plan = Plan(items, setting, rows=5)
    found = [
        {sample.item: replace(sample, seconds=0) for sample in answers(runner, plan, plan.wanted)}
        for runner in (engine, Endpoint(server.v1))
    ]
    here, there = found
    assert len(here) == 5
    for item, sample in here.items():
        assert there[item].text == sample.text
        assert (there[item].nfe, there[item].tokens) == (sample.nfe, sample.tokens)
        assert there[item].token_forwards == sample.token_forwards


def scores(folder):
    """The verdicts and answers of a run, without times."""
    found = {}
    for path in sorted(folder.rglob("*.jsonl")):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            record.pop("seconds", None)
            found[str(path.relative_to(folder)), line[:60]] = record
    return found


def differing(ours, theirs):
    """The items with a record that the other run does not have."""
    sides = (ours, theirs), (theirs, ours)
    return {r.get("item") for own, other in sides for k, r in own.items() if other.get(k) != r}


@pytest.mark.slow
def test_the_score_of_humaneval(server, tmp_path, capsys):
    wanted = ["--protocol", "fastdllm", "--limit", "2", "--allow-unsafe-code", "--quiet"]
    wanted += ["--config", FAST, "--config", DRAWN]
    here, there = tmp_path / "here", tmp_path / "there"
    assert call(["eval", "humaneval", "--device", "cpu", *wanted, "--out", str(here)]) == 0
    served = ["--endpoint", server.v1, *wanted, "--out", str(there)]
    assert call(["eval", "humaneval", *served]) == 0
    capsys.readouterr()
    assert scores(here) == scores(there)


@pytest.mark.slow
def test_the_scores_of_the_bundled_tasks(server, tmp_path, capsys):
    wanted = ["--tasks", "math,sudoku", "--limit", "6", "--quiet", "--config", FAST]
    here, there = tmp_path / "here", tmp_path / "there"
    assert call(["eval", "bundled", "--device", "cpu", *wanted, "--out", str(here)]) == 0
    served = ["--endpoint", server.v1, *wanted, "--out", str(there), "--rows", "4"]
    assert call(["eval", "bundled", *served]) == 0
    capsys.readouterr()
    assert len(differing(scores(here), scores(there))) <= 1  # at a near-tie, by the batch mates
    verdicts = [r["right"] for (path, _), r in scores(there).items() if "verdicts" in path]
    assert sum(verdicts) >= 6
