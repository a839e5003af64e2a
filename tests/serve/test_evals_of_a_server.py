"""`dlm eval humaneval --endpoint` gives the score of the local engine."""

from __future__ import annotations

import json

import pytest

from dlm.cli.app import run as call

CONFIGS = [
    "--config",
    "fast: preset=fast max_new_tokens=96",
    "--config",
    "exact: unmask=topk blocks=whole steps=24 max_new_tokens=48 top_k=5 temperature=0.5 seed=3",
]


def samples(folder):
    """The answers of a run by setting, problem and number, without times."""
    found = {}
    for path in sorted(folder.rglob("*.jsonl")):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            found[path.name, record.get("setting"), record.get("item"), record.get("sample")] = {
                name: record.get(name) for name in ("text", "tokens", "nfe", "passed", "correct")
            }
    return found


@pytest.mark.slow
def test_scores_are_those_of_the_engine(server, tmp_path, capsys):
    wanted = ["--limit", "6", "--allow-unsafe-code", "--quiet", *CONFIGS]
    here, there = tmp_path / "here", tmp_path / "there"
    assert call(["eval", "humaneval", "--device", "cpu", *wanted, "--out", str(here)]) == 0
    served = ["--endpoint", server.v1, *wanted, "--out", str(there)]
    assert call(["eval", "humaneval", *served]) == 0
    capsys.readouterr()
    assert samples(here) == samples(there)
