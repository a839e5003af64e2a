"""`dlm decide`: questions of every kind, files, bars, JSON, and wrong input."""

import io
import json
import sys

import pytest

import dlm

JUDGED = "Compute 3+4.\nAnswer: 3+4=7"
FORM = (
    "--template",
    "question={instructions}",
    "--template",
    "user={input}\\n{questions}",
    "--template",
    "answer=[[mask:7]]=7? {hole}",
)


def refused(result, param):
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith(f"dlm: error: `{param}`"), err
    assert err.count("\n") == 1
    return err


def test_bars_for_each_label(call):
    asked = ("--choice", "Which is it?: sum|product", "--score", "How sure?: low|mid|high")
    code, out, err = call("decide", JUDGED, "--predicate", "Is it correct?", *FORM, *asked)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("Is it correct?")
    masses = [line for line in lines if "of the model's own mass was on these labels" in line]
    assert len(masses) == 3
    labels = [line.split()[0] for line in lines if line.startswith("  ") and line not in masses]
    assert labels == ["true", "false", "sum", "product", "low", "mid", "high"]
    assert float(lines[1].split()[-1].rstrip("%")) > 90
    assert err.count("\n") == 1
    assert "forward" in err


def test_answers_that_the_model_would_not_have_written_are_marked(call):
    _, out, _ = call("decide", JUDGED, "--predicate", "Is it correct?", *FORM)
    (line,) = [line for line in out.splitlines() if "own mass" in line]
    assert float(line.split()[0].rstrip("%")) > 90
    assert "do not trust" not in line
    _, out, _ = call("decide", "I was charged twice.", "--predicate", "Is a refund asked for?")
    told = " ".join(out.split())
    assert "under 0.1% of the model's own mass was on these labels: do not trust" in told
    _, out, _ = call("decide", JUDGED, "--predicate", "Is it?", "--scoring", "pseudo")
    assert "own mass" not in out, "pseudo-likelihoods have none"


def test_json_is_what_the_engine_answers(call, tmp_path):
    questions = [
        {"type": "predicate", "name": "right", "instructions": "Is it correct?"},
        {
            "type": "choice",
            "name": "kind",
            "instructions": "Which is it?",
            "choices": [{"value": "sum", "description": "an addition"}, "product", True],
        },
        {"type": "score", "instructions": "How sure?", "levels": [{"label": "low"}, "high"]},
    ]
    file = tmp_path / "questions.json"
    file.write_text(json.dumps({"questions": questions}))
    code, out, _ = call("decide", JUDGED, "--questions", file, "--rotations", 2, "--json")
    assert code == 0
    found = json.loads(out)
    asked = [
        dlm.Predicate("right", "Is it correct?"),
        dlm.Choice("kind", "Which is it?", [dlm.Option("sum", "an addition"), "product", True]),
        dlm.Score(None, "How sure?", ["low", "high"]),
    ]
    expected = dlm.load().decide(JUDGED, asked, rotations=2)
    assert found["answers"] == [answer.to_json() for answer in expected]
    assert found["costs"]["nfe"] == expected.costs.nfe
    assert found["answers"][1]["probabilities"][2]["value"] is True


def test_a_file_may_be_a_list_and_joins_the_arguments(call, tmp_path):
    file = tmp_path / "questions.json"
    file.write_text(json.dumps([{"type": "predicate", "instructions": "Is it green?"}]))
    asked = ("--questions", file, "--choice", "Which?: x|y", "--joint", "--json")
    code, out, _ = call("decide", "A frog.", *asked, "--template", "yes=1", "--template", "no=2")
    assert code == 0
    found = json.loads(out)
    assert [answer["type"] for answer in found["answers"]] == ["predicate", "choice"]
    assert found["costs"]["nfe"] == 1


def test_the_input_may_come_from_stdin(call, monkeypatch):
    data = io.TextIOWrapper(io.BytesIO(f"{JUDGED}\n".encode()), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", data)
    code, out, _ = call("decide", "-", "--predicate", "Is it correct?", *FORM, "--json")
    assert code == 0
    answer = dlm.load().decide(
        JUDGED,
        dlm.Predicate(None, "Is it correct?"),
        template={
            "question": "{instructions}",
            "user": "{input}\n{questions}",
            "answer": "[[mask:7]]=7? {hole}",
        },
    )
    assert json.loads(out)["answers"] == [answer.answers[0].to_json()]


@pytest.mark.parametrize(
    ("param", "arguments"),
    [
        ("questions", ()),
        ("choice", ("--choice", "Which?")),
        ("choice", ("--choice", "Which?: x")),
        ("score", ("--score", "x|y")),
        ("questions[0].choices[1].value", ("--choice", "Which?: x|x| |y")),
        ("questions[0].levels", ("--score", "Which?: " + "|".join("abcdefghijk"))),
        ("rotations", ("--predicate", "Is it?", "--rotations", "0")),
        ("temperature", ("--predicate", "Is it?", "--temperature", "nan")),
        ("scoring", ("--predicate", "Is it?", "--scoring", "best")),
        ("template", ("--predicate", "Is it?", "--template", "answer")),
        ("template", ("--predicate", "Is it?", "--template", "anser={hole}")),
        ("template.answer", ("--predicate", "Is it?", "--template", "answer=Yes")),
        ("template.end", ("--predicate", "Is it?", "--template", "end=eos")),
        ("questions", ("--questions", "no-such-file.json")),
    ],
)
def test_wrong_arguments_are_refused_by_name(call, param, arguments):
    refused(call("decide", "A frog.", *arguments), param)


@pytest.mark.parametrize(
    ("param", "content"),
    [
        ("questions", "[1"),
        ("questions", "{}"),
        ("questions[0]", "[1]"),
        ("questions[0].type", '[{"instructions": "x"}]'),
        ("questions[0].type", '[{"type": "guess", "instructions": "x"}]'),
        ("questions[0].instructions", '[{"type": "predicate"}]'),
        ("questions[0].instructions", '[{"type": "predicate", "instructions": 3}]'),
        ("questions[0]", '[{"type": "predicate", "instructions": "x", "choices": []}]'),
        ("questions[0].choices", '[{"type": "choice", "instructions": "x"}]'),
        ("questions[0]", '[{"type": "choice", "instructions": "x", "options": ["a", "b"]}]'),
        ("questions[0].choices", '[{"type": "choice", "instructions": "x", "choices": "xy"}]'),
        (
            "questions[0].choices[0].value",
            '[{"type": "choice", "instructions": "x", "choices": [{"description": "x"}, "y"]}]',
        ),
        (
            "questions[0].levels[1].label",
            '[{"type": "score", "instructions": "x", "levels": ["y", 3]}]',
        ),
    ],
)
def test_wrong_files_are_refused_by_name(call, tmp_path, param, content):
    file = tmp_path / "questions.json"
    file.write_text(content)
    refused(call("decide", "A frog.", "--questions", file), param)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("model: tiny", "is no JSON: Expecting value at line 1, column 1"),
        ("[" * 100_000, "is nested too deeply"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_files_without_questions_say_so(call, tmp_path, content, words):
    file = tmp_path / "questions.json"
    if content is not None:
        file.write_text(content)
    assert words in refused(call("decide", "A frog.", "--questions", file), "questions")
