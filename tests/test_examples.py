"""The examples run, and show what they say."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest

import dlm
from dlm.cli import run
from dlm.evals.tasks.countdown import reaches
from tests.helpers import false_equations

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def output(capsys, monkeypatch):
    """What an example prints; its answers, other than drafts and the one that a reward is to
    improve, are free of false equations.
    """

    def output(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        captured = capsys.readouterr()
        assert captured.err == ""
        answers = re.sub(r"^(path \d|no reward).*$", "", captured.out, flags=re.MULTILINE)
        assert false_equations(answers) == []
        return captured.out

    return output


def test_quickstart(output):
    lines = output("quickstart.py").splitlines()
    form = r"(\S+) +([1-9]\d*) forwards, [\d.]+ tokens per forward"
    costs = [re.fullmatch(form, line) for line in lines[-3:]]
    assert [cost[1] for cost in costs] == ["topk", "threshold(0.9)", "threshold(0.6)"]


def test_watch_ends_with_the_answer(output):
    lines = output("watch.py", "hello").splitlines()
    plain = [re.sub(r"\033\[\dm", "", line) for line in lines]
    answer = dlm.load().generate("hello", max_new_tokens=48)
    assert [int(line.split()[0]) for line in plain] == list(range(1, answer.stats.nfe + 1))
    masks = [line.count("·") for line in plain]
    assert masks == sorted(masks, reverse=True)
    shown = re.split("[∎·]", plain[-1][4:])[0].replace("⏎", "\n")
    assert answer.text.startswith(shown)
    assert all("\033[1m" in line for line in lines)


def test_branch(output):
    lines = output("branch.py").splitlines()
    still, total, forwards = map(int, re.findall(r"\d+", lines[0]))
    assert still == 48
    assert forwards == 16
    paths = [re.match(r"path (\d): +-\d+\.\d+  '", line) for line in lines[1:5]]
    assert [path[1] for path in paths] == ["0", "1", "2", "3"]
    best = re.match(r"path (\d), (\d+) forwards, 1[67] of them shared: ", lines[5])
    again = re.match(r"with its end written anew, (\d+) forwards: ", lines[6])
    assert int(best[2]) <= 64 < total
    assert int(again[1]) > int(best[2])


def test_anchored(output):
    """Both rewards find what the rule alone does not, at the same number of forwards."""
    lines = output("anchored.py").splitlines()
    found = [re.fullmatch(r"([a-z ]+), 8 forwards: '(.*)'", line) for line in lines]
    assert [match[1] for match in found] == ["no reward", "candidates", "gradients"]
    solved = [reaches(match[2].replace("\\n", "\n"), [9, 3, 5], 17) for match in found]
    assert solved == [False, True, True]


def test_my_rule(output):
    assert output("my_rule.py").count(" forwards with ") == 3
    path = "examples.my_rule:Falling"
    assert run(["generate", "hello", "--unmask", f"{path}(fall=0.3)", "--quiet"]) == 0
    engine = dlm.load()
    prompt = "Compute 8*7+6*9-4."
    constant = engine.generate(prompt, unmask=f"{path}(high=0.95, fall=0.0)")
    assert constant.canvas == engine.generate(prompt, unmask="threshold(0.95)").canvas
    assert constant.stats.nfe > engine.generate(prompt, unmask=f"{path}(high=-1.0)").stats.nfe


def test_batch_answers_a_file_line_by_line(tmp_path, capsys, monkeypatch):
    asked = [f"Say the word {word} two times." for word in ("lion", "cat", "dog")] * 7
    path = tmp_path / "prompts.txt"
    path.write_text("\n\n".join(asked) + "\n")
    monkeypatch.setattr(sys, "argv", ["batch.py", str(path)])
    runpy.run_path(str(EXAMPLES / "batch.py"), run_name="__main__")
    out, err = capsys.readouterr()
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["prompt"] for answer in answers] == asked
    assert answers[:3] == answers[3:6] == answers[-3:]
    assert f" in {sum(answer['nfe'] for answer in answers)} forwards" in err


def test_a_batch_without_a_file_says_how_it_is_called(output):
    with pytest.raises(SystemExit) as left:
        output("batch.py")
    assert left.value.code == "usage: python examples/batch.py FILE > answers.jsonl"
