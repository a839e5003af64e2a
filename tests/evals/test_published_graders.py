"""Graders beside the verdicts of the code that they follow, probe by probe."""

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from dlm.errors import InvalidRequest
from dlm.evals.benchmarks import BENCHMARKS, published
from dlm.evals.graders import Judge, by_name
from dlm.evals.graders import judge as judging
from dlm.evals.graders.by_name import GRADERS, grade
from dlm.evals.items import Item
from dlm.sandbox import Outcome, Verdict

PROBES = Path(__file__).parents[1] / "data" / "graders"
PROMPT = (
    "from typing import List\n\n\n"
    'def f(x: int) -> int:\n    """ Add one.\n    >>> f(1)\n    2\n    """\n'
)
KINDS = sorted(path.stem for path in PROBES.glob("*.jsonl"))
NEEDS_VERIFY = ("maths-minerva2", "maths-minerva3", "maths-verified")
UNPROBED = {"humaneval-raw", "mbpp-raw", "mbpp-prefilled", "mbpp-code"}
"""The text up to a stop string, and the rule that follows nobody."""


def probes(kind):
    lines = (PROBES / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()
    head, *found = map(json.loads, lines)
    assert head["source"]
    assert head["commit"]
    return found


def grader_of(kind):
    (name,) = (name for name in GRADERS if name.rsplit("-v", 1)[0] == kind)
    return name


def item_of(kind, probe):
    reference = probe.get("reference")
    meta = {"grader": grader_of(kind), "reference": reference}
    if kind == "countdown-d1":
        meta |= dict(zip(("numbers", "target"), reference, strict=True))
    elif kind == "countdown-chains":
        meta |= {"input": reference}
    elif kind == "sudoku-d1":
        meta |= dict(zip(("puzzle", "solution"), reference, strict=True))
    elif kind == "sudoku-grid":
        meta |= {"puzzle": reference.replace("\n", "")}
    elif "program" in probe:
        meta |= {"code": PROMPT, "entry": "f", "text": "Write a function f to add one."}
        meta |= {"tests": "assert f(1) == 2"}
    answer = f"We have ${reference}$ so it is $\\boxed{{{reference}}}$."
    if "program" in probe:
        answer = "def f(x):\n    return x + 1\n"
    return Item("probe", kind.partition("-")[0], "all", "", answer, meta)


def test_every_grader_is_probed():
    assert {name.rsplit("-v", 1)[0] for name in GRADERS} == {*KINDS, *UNPROBED}
    for kind in KINDS:
        assert len({probe["text"] for probe in probes(kind)}) >= 40, kind


@pytest.fixture(scope="module")
def judge():
    with Judge() as one:
        yield one


class Plain(Judge):
    """One that knows no mathematics, which most verdicts do without."""

    def same_mathematics(self, text, reference, rule=None):
        return None


@pytest.mark.parametrize("kind", KINDS)
def test_verdicts_are_those_of_the_source(kind, judge, monkeypatch):
    if kind in NEEDS_VERIFY:
        pytest.importorskip("math_verify")
    asked = judge if kind in NEEDS_VERIFY else Plain()
    ran = []

    def run(source, tests, **options):
        ran.append(source)
        return Outcome(Verdict.PASSED, "", "", 0.0)

    monkeypatch.setattr(by_name, "check_program", run)
    for probe in probes(kind):
        marks = grade(item_of(kind, probe), probe["text"], asked)
        if "program" in probe:
            assert ran.pop().rstrip("\n") == probe["program"].rstrip("\n"), probe["text"]
        else:
            compare(probe, marks)
    assert not ran


def compare(probe, marks):
    if "cells" in probe:
        right, empty = probe["cells"]
        assert marks.scores["cells"] == right / empty, probe
        return
    if probe.get("differs") == "VERIFY_NOTE":
        return  # of another version of math-verify than the source's
    if probe.get("differs") in ("POWER_NOTE", "PYTHON_NOTE"):
        assert marks.right != probe["right"], probe
        return
    assert marks.right == probe["right"], probe
    if "strict" in probe:
        assert marks.scores["strict"] == probe["strict"], probe
    if "math_verify" in probe and "differs" not in probe and installed("math-verify") == "0.9.0":
        assert marks.scores["math_verify"] == probe["math_verify"], probe


def installed(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@pytest.mark.parametrize("kind", KINDS)
def test_differences_are_told(kind):
    """Each is in the note of every protocol that judges so."""
    told = {probe["differs"] for probe in probes(kind) if "differs" in probe}
    judged = [p for known in BENCHMARKS.values() for p in known.values()]
    judged = [protocol for protocol in judged if protocol.grader == grader_of(kind)]
    assert judged
    for name in told:
        assert all(getattr(published, name) in protocol.note for protocol in judged)


def test_what_needs_math_verify_says_so_before_it_begins(monkeypatch):
    assert {name.rsplit("-v", 1)[0] for name in judging.VERIFYING} == set(NEEDS_VERIFY)
    assert set(GRADERS) >= judging.VERIFYING
    monkeypatch.setattr(judging, "find_spec", lambda name: None)
    judging.check_grader("maths-d1-v2")
    with pytest.raises(InvalidRequest, match=r"pip install .*\[evals\]"):
        judging.check_grader("maths-verified-v2")


def test_answers_that_were_judged_wrongly_once():
    """29 dollars are 29 under SDAR's protocol, in whatever way they are written."""
    grader = BENCHMARKS["gsm8k"]["sdar"].grader
    item = Item("x", "gsm8k", "all", "", "", {"grader": grader, "reference": "29"})
    for inside in ("29 dollars", r"29\text{ dollars}", r"\$29", "29.00", "29.", "x=29", r"29\%"):
        assert grade(item, f"So it is \\boxed{{{inside}}}.", Judge()).right, inside
    for text in ("The answer is 29 dollars.", r"\boxed{{29}}"):
        assert grade(item, text, Judge()).right, text
    for inside in ("28 dollars", "290", "-29", ""):
        assert not grade(item, f"\\boxed{{{inside}}}", Judge()).right, inside
