"""`Stats.changes` counts the events of a row."""

from collections import Counter

import pytest

import dlm


@pytest.mark.parametrize(
    "options",
    [
        {"unmask": "topk", "steps": 8, "blocks": "fixed(16)"},
        {"preset": "revise", "steps": 12},
        {"unmask": "everything", "edit": "rewrite(0.9)", "temperature": 0.7},
        {"n": 2, "temperature": 1.0, "cache": "dual"},
    ],
    ids=str,
)
def test_changes_are_those_of_the_events(options):
    found = dlm.load(device="cpu").generate("12+5=?", max_new_tokens=32, trace=True, **options)
    for answer in found.choices or (found,):
        told = Counter()
        for event in answer.trace:
            if event.type == "block":
                told["block"] += 1
            elif event.type in ("commit", "remask", "replace", "renoise"):
                told[event.type] += len(event.pos)
        assert Counter(answer.stats.changes) == told
        assert told["commit"] - told["remask"] >= answer.stats.tokens
