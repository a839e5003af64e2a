"""Benchmarks: files that are known by their hash, protocols, graders, and runs to the end."""

import json
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

import dlm
from dlm.cli.app import run as call
from dlm.cli.benchmark import HELP
from dlm.errors import InvalidRequest
from dlm.evals.benchmarks import BENCHMARKS, benchmark_items, get_protocol
from dlm.evals.benchmarks import files as data
from dlm.evals.benchmarks.files import FILES, SHIPPED, fetch, locate
from dlm.evals.benchmarks.problems import LOADERS, shown_examples, solution
from dlm.evals.graders import Judge
from dlm.evals.graders.by_name import GRADERS, grade
from dlm.evals.items import bundled_items
from dlm.evals.report import table
from dlm.evals.results import results_of
from dlm.evals.run import Run, benchmark_run, estimate, read_run
from dlm.evals.sampling import asked, read_samples
from dlm.evals.settings import Setting
from dlm.evals.strategies import threshold_sweep
from dlm.evals.verdicts import read_marks
from dlm.sandbox import Sandbox, best_sandbox, checks
from tests.evals.scripted import Scripted

PROTOCOLS = [protocol for known in BENCHMARKS.values() for protocol in known.values()]
IDS = [f"{protocol.benchmark}-{protocol.name}" for protocol in PROTOCOLS]

# One problem in the form of each file; `ANSWERS` says what is right and what is wrong for them.
ROWS = {
    "humaneval": {
        "task_id": "HumanEval/900",
        "prompt": 'def double(x):\n    """Twice."""\n',
        "entry_point": "double",
        "canonical_solution": "    return 2 * x\n",
        "test": "def check(f):\n    assert f(3) == 6\n",
    },
    "mbpp": {
        "task_id": 11,
        "text": "Write a function to double a number.",
        "code": "def double(x):\r\n  return 2 * x",
        "test_setup_code": "",
        "test_list": ["assert double(3) == 6", "assert set([double(1)]) == {2}"],
    },
    "math500": {
        "problem": "What is half of one?",
        "solution": r"It is $\boxed{\frac{1}{2}}$.",
        "answer": r"\frac{1}{2}",
        "level": 2,
        "unique_id": "test/algebra/1.json",
    },
    "gsm8k": {
        "question": "What is 1,000 + 500?",
        "answer": "1000+500=<<1000+500=1500>>1500\n#### 1,500",
    },
    "countdown": {"input": "3,5,2", "output": "16"},
    "countdown-chains": {"input": "15,44,79,50", "output": "44-15=29,79-29=50"},
    "sudoku": {"Puzzle": "0234341221434300", "Solution": "1234341221434321"},
    "sudoku-grids": {"input": "0234\n3412\n2143\n4300", "output": "1234\n3412\n2143\n4321"},
}
ROWS |= {
    "mbpp-sanitized": {k: v for k, v in ROWS["mbpp"].items() if k != "text"} | {"prompt": "Double."}
}
ANSWERS = {
    "humaneval": ("    return x + x\n", "    return x\n"),
    "mbpp": ("```python\ndef double(x):\n    return x + x\n```", "def double(x):\n    return x"),
    "math500": (
        "so \\boxed{1/2}\nFinal Answer: The final answer is $\\frac12$. I hope it is correct.",
        r"so \boxed{2}",
    ),
    "gsm8k": (r"It is \boxed{1500}. #### 1,500", r"\boxed{1501}"),
    "countdown": (r"\boxed{(3+5)*2}", r"\boxed{3+5+8}"),
    "countdown-chains": ("79-44=35,35+15=50", "79-44=35,35+14=49"),
    "sudoku": ("<answer>1234341221434321</answer>", "<answer>1234341221434322</answer>"),
    "sudoku-grids": ("1234\n3412\n2143\n4321", "1234\n3412\n2143\n4312"),
}
ANSWERS |= {"mbpp-sanitized": ANSWERS["mbpp"]}
PLAIN = ("def double(x):\n    return x + x\n", "def double(x):\n    return x\n")
ANSWERS |= {
    "maths-verified-v2": (r"It is \boxed{\frac{1}{2}}.", r"It is \boxed{2}."),
    "humaneval-opencompass-v1": tuple(f"```python\n{code}```" for code in PLAIN),
    "gsm8k-opencompass-v1": ("The answer is 1500", "The answer is 1501"),
    "mbpp-prefilled-v2": tuple(f"{code}```" for code in PLAIN),
    "mbpp-raw-v2": PLAIN,
    "mbpp-opencompass-v2": tuple(f"[BEGIN]\n '{code}' \n[DONE]" for code in PLAIN),
}


def written(folder: Path, name: str) -> Path:
    """A file of one problem."""
    path, row = folder / Path(FILES[name].path).name.removesuffix(".gz"), ROWS[name]
    if path.suffix == ".csv":
        path.write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    else:
        path.write_text(json.dumps([row] if path.suffix == ".json" else row) + "\n")
    return path


# files


def test_humaneval_ships_and_is_the_published_file():
    path = locate("humaneval")
    assert len(list(LOADERS["humaneval"](path))) == FILES["humaneval"].count == 164


def test_a_file_that_is_missing_or_another_one(tmp_path, monkeypatch):
    monkeypatch.setenv("DLM_DATA", str(tmp_path))
    with pytest.raises(InvalidRequest, match=r"`dlm eval fetch gsm8k` brings it .MIT"):
        locate("gsm8k")
    other = written(tmp_path, "gsm8k")
    with pytest.raises(InvalidRequest, match="is not the published gsm8k: sha256"):
        locate("gsm8k", other)
    with pytest.raises(InvalidRequest, match=r"must be one of .*'gsm8k'.*, got 'gsm8'"):
        locate("gsm8")


def test_files_are_fetched_once_and_checked(tmp_path, monkeypatch):
    source = locate("humaneval")
    monkeypatch.setenv("DLM_DATA", str(tmp_path))
    real = FILES["humaneval"]
    table = {
        "good": replace(real, path="a/b.gz", url=source.as_uri()),
        "changed": replace(real, url=source.as_uri(), sha256="0" * 64),
        "gone": replace(real, url=(tmp_path / "nothing").as_uri()),
    }
    monkeypatch.setattr(data, "FILES", table)
    assert fetch("good") == tmp_path / "a" / "b.gz" == locate("good")
    with pytest.raises(InvalidRequest, match="is another file now"):
        fetch("changed")
    with pytest.raises(InvalidRequest, match="cannot be fetched"):
        fetch("gone")


# protocols


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=IDS)
def test_protocols_hang_together(protocol, tmp_path):
    """Prompts hold the problem; right answers are right, and wrong ones wrong."""
    assert protocol.grader in GRADERS
    assert set(protocol.options) <= set(dlm.FIELDS)
    items = list(LOADERS[protocol.data](written(tmp_path, protocol.data)))
    (item,) = items
    shots = items
    if protocol.shown:
        shots = shown_examples(SHIPPED / "shots" / f"{protocol.shown}.jsonl")
    ask = protocol.ask(item, shots)
    shown = ask.prompt if ask.raw else "\n".join(turn["content"] for turn in ask.prompt)
    parts = ("code", "text", "problem", "question", "input", "puzzle")
    assert any(str(item.meta[part]) in shown for part in parts if part in item.meta) or (
        str(item.meta["numbers"]) in shown
    )
    right, wrong = ANSWERS.get(protocol.grader) or ANSWERS[protocol.data]
    chosen = replace(item, meta={**item.meta, "grader": protocol.grader})
    with Judge() as judge:
        assert grade(chosen, right, judge).right
        for text in (wrong, "", "junk", "```", r"\boxed{", "def f(:"):
            assert not grade(chosen, text, judge).right, text


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=IDS)
def test_protocols_decode(protocol):
    """Their options are accepted by a model that suits them."""
    model = "tiny-block" if protocol.name == "sdar" else "tiny"
    looked_at = dlm.inspect(model)
    assert looked_at.explain(**protocol.options)


def test_references_in_the_files_are_right(tmp_path):
    with Judge() as judge:
        for name in (
            "humaneval",
            "mbpp",
            "math500",
            "countdown",
            "countdown-chains",
            "sudoku-grids",
        ):
            chosen = "base" if name == "humaneval" else None
            protocol = next(p for p in PROTOCOLS if p.data == name and chosen in (None, p.name))
            (item,) = LOADERS[name](written(tmp_path, name))
            item = replace(item, meta={**item.meta, "grader": protocol.grader})
            assert grade(item, item.answer, judge).right, name


def test_solutions_of_countdown():
    assert solution([3, 5, 2], 16) in ("((3+5)*2)", "((5+3)*2)", "(2*(3+5))", "(2*(5+3))")
    assert solution([1, 1, 1], 100) == ""


def test_the_help_names_the_protocols(capsys):
    assert HELP.keys() == BENCHMARKS.keys()
    assert call(["eval", "mbpp", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Protocols: {', '.join(BENCHMARKS['mbpp'])}. The first is the default." in shown


def test_unknown_protocols():
    with pytest.raises(InvalidRequest, match=r"of gsm8k must be one of 'ada.*got 'wedlm'"):
        get_protocol("gsm8k", "wedlm")
    with pytest.raises(InvalidRequest, match=r"'countdown'.*got 'mmlu'"):
        get_protocol("mmlu")
    assert get_protocol("humaneval").name == "llada"


def test_d1_draws_the_puzzles_that_it_drew():
    """The seven shards of its published answers begin with these rows of the file."""
    chosen = get_protocol("sudoku", "d1").choose(list(range(500)))[1]
    assert len(set(chosen)) == 256
    assert chosen[:7] == [361, 73, 374, 155, 104, 394, 377]


# runs


def solved(item):
    """The reference of a function of HumanEval in a fence."""
    return f"```python\n{item.meta['code']}{item.answer}```"


def test_reference_solutions_pass_and_junk_does_not(tmp_path):
    """All of HumanEval by an oracle and by an engine that says nothing of use."""
    protocol = get_protocol("humaneval")
    items = benchmark_items(protocol)
    assert len(items) == 164
    for name, said, right in (
        ("oracle", solved, 164),
        ("junk", lambda item: "I do not know.", 0),
    ):
        run = benchmark_run(tmp_path / name, protocol)
        engine = Scripted({json.dumps(item.prompt): said(item) for item in items})
        run.generate(engine, lambda *told: None)
        run.grade(Judge(2))
        marks = read_marks(run.path(run.settings[0], "humaneval", "verdicts"))
        wrong = {key[0]: mark.note for key, mark in marks.items() if not mark.right}
        assert len(marks) - len(wrong) == right, (name, wrong)


def test_a_run_that_is_interrupted_ends_alike(tmp_path):
    engine = dlm.load("tiny", device="cpu", max_rows=4)
    protocol = replace(
        get_protocol("humaneval", "base"),
        options={"max_new_tokens": 32, "unmask": "threshold(0.9)", "cache": "dual"},
    )
    whole = benchmark_run(tmp_path / "whole", protocol, limit=4)
    whole.open(engine)
    whole.generate(engine, lambda *told: None)

    class Enough(Exception):
        pass

    def tell(setting, task, sample):
        if sample.item.endswith("/1"):
            raise Enough

    halves = benchmark_run(tmp_path / "halves", protocol, limit=4, sandbox="bwrap")
    halves.open(engine)
    with pytest.raises(Enough):
        halves.generate(engine, tell)
    assert halves.missing() == 2
    halves.generate(engine, lambda *told: None)
    for run in (whole, halves):
        run.grade(Judge(2))
    texts = [
        [(s.item, s.text) for s in read_samples(run.path(run.settings[0], "humaneval", "samples"))]
        for run in (whole, halves)
    ]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 4
    again = read_run(tmp_path / "halves")
    assert again.sandbox == halves.sandbox == "bwrap", "it is graded again where it was"
    assert isinstance(again, Run)
    assert again.sets == halves.sets
    figures = [results_of(run).figures[0].accuracy for run in (whole, halves, again)]
    assert len(set(figures)) == 1


def test_raw_prompts_go_around_the_template():
    engine = dlm.load("tiny", device="cpu")
    (item,) = benchmark_items(get_protocol("humaneval", "base"), limit=1)
    assert engine.text.decode(asked(engine, item)).startswith("from typing import List")
    (item,) = benchmark_items(get_protocol("humaneval"), limit=1)
    assert asked(engine, item) == item.prompt
    with pytest.raises(InvalidRequest, match="without a tokenizer"):
        asked(Scripted({}), replace(item, raw=True))


def test_what_departs_from_a_protocol_is_custom(tmp_path):
    run = benchmark_run(
        tmp_path,
        get_protocol("humaneval"),
        [Setting("fast", {"unmask": "threshold(0.9)"})],
        limit=2,
    )
    assert [setting.name for setting in run.settings] == ["llada", "custom: fast"]
    assert run.settings[1].options["guide"] == "forbid('end_of_text')", "the rest stays"


def test_the_command(tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--limit", "2", "--out", str(out), "--protocol", "fastdllm", "--quiet"]
    options += ["--allow-unsafe-code"]
    assert call(["eval", "humaneval", *options]) == 0
    header = json.loads((out / "run.json").read_text())
    assert header["protocol"]["name"] == "fastdllm"
    assert header["protocol"]["sandbox"] == best_sandbox().kind
    told = (out / "table.md").read_text()
    assert "Protocol fastdllm: Fast-dLLM" in told
    assert "humaneval-dream-v1" in told
    assert table(results_of(read_run(out))) == told
    assert call(["eval", "humaneval", *options, "--fail-under", "50"]) == 1
    capsys.readouterr()
    assert call(["eval", "gsm8k", "--protocol", "fastdlm"]) == 2
    assert "got 'fastdlm'" in capsys.readouterr().err
    assert call(["eval", "report", str(out)]) == 0


def test_what_does_not_fit_the_model_is_wrong_and_said(tmp_path):
    engine = dlm.load("tiny", device="cpu", max_rows=2)
    options = {"max_new_tokens": 600, "unmask": "threshold(0.5)", "blocks": "fixed(32)"}
    protocol = replace(get_protocol("humaneval", "base"), options=options)
    run = benchmark_run(tmp_path, protocol, limit=3)
    long = replace(run.sets["humaneval"][1], prompt="x = 1\n" * 400)
    run = replace(run, sets={"humaneval": [run.sets["humaneval"][0], long]}, rows=2)
    run.open(engine)
    assert estimate(engine, run) > 0
    run.generate(engine, lambda *told: None)
    reasons = {s.item: s.finish_reason for s in read_samples(run.path(*run.cells[0], "samples"))}
    assert reasons[long.id] == "refused"
    assert list(reasons.values()).count("refused") == 1
    run.grade(Judge(2))
    results = results_of(run)
    assert results.figures[0].n == 2
    assert "base: 1 did not fit the model" in table(results)


def test_a_page_of_several_runs(tmp_path, capsys):
    for name, protocol in (("one", "fastdllm"), ("two", "adablock")):
        options = ["--limit", "1", "--out", str(tmp_path / name), "--protocol", protocol]
        options += ["--quiet", "--allow-unsafe-code"]
        assert call(["eval", "humaneval", *options]) == 0
    capsys.readouterr()
    assert call(["eval", "report", str(tmp_path)]) == 0
    page = (tmp_path / "report.md").read_text()
    assert capsys.readouterr().out.strip() == page.strip()
    assert page.count("## tiny: humaneval") == 2
    assert "Protocol adablock" in page
    assert (tmp_path / "report.png").stat().st_size > 5000
    assert call(["eval", "report", str(tmp_path / "one" / "fastdllm")]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_two_runs_beside_each_other(tmp_path, capsys):
    """Three of four right against two, on the items that both were asked."""
    protocol = get_protocol("humaneval")
    items = benchmark_items(protocol, limit=5)
    for name, right, limit in (("one", {0, 1, 2}, 4), ("two", {1, 3, 4}, 5)):
        run = benchmark_run(tmp_path / name, protocol, limit=limit)
        run.open(dlm.load("tiny", device="cpu"))
        told = {
            json.dumps(i.prompt): solved(i) if n in right else "no" for n, i in enumerate(items)
        }
        run.generate(Scripted(told), lambda *told: None)
        run.grade(Judge(2))
    folders = [str(tmp_path / "one"), str(tmp_path / "two")]
    assert call(["eval", "compare", *folders]) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.startswith("| humaneval | 4 of 4 and 5 | 75.0% | 50.0% | -25.0 (")
    assert "| 2 | 1 | 1 | 25% |" in told
    assert call(["eval", "compare", *folders, "--against", "fast"]) == 2
    assert "must be one of 'llada', got 'fast'" in capsys.readouterr().err


def test_a_sweep_of_thresholds(tmp_path, capsys):
    out = ["--out", str(tmp_path / "run"), "--limit", "2", "--quiet", "--allow-unsafe-code"]
    command = ["eval", "humaneval", "--protocol", "fastdllm", *out]
    assert call([*command, "--sweep", "0.9,0.5"]) == 0
    told = (tmp_path / "run" / "table.md").read_text()
    assert "custom: threshold 0.9" in told
    assert "| threshold |" in told, "accuracy under parallelism"
    assert call([*command, "--sweep", "0.9,many"]) == 2
    assert call([*command, "--sweep", "0"]) == 2
    told = capsys.readouterr().err
    assert "must be numbers with commas, got '0.9,many'" in told
    assert "must be numbers in (0, 1], got 0.0" in told
    looked_at = dlm.inspect("tiny-block")
    for setting in threshold_sweep(get_protocol("gsm8k", "sdar"), [0.9]):
        assert setting.options["unmask"] == "dynamic(0.9)"
        assert looked_at.explain(**{**get_protocol("gsm8k", "sdar").options, **setting.options})


def test_unsafe_places_are_refused(tmp_path, capsys):
    options = ["--limit", "1", "--out", str(tmp_path), "--sandbox", "rlimit"]
    assert call(["eval", "humaneval", *options]) == 2
    assert "--allow-unsafe-code" in capsys.readouterr().err


def test_what_the_sandbox_fails_on_is_in_no_figure(tmp_path, monkeypatch, capsys):
    """It is said loudly, and the next grading tries again."""
    protocol, bodies = get_protocol("humaneval"), {}
    run = benchmark_run(tmp_path, protocol, limit=3)
    for item in run.sets["humaneval"]:
        bodies[json.dumps(item.prompt)] = solved(item)
    run.open(dlm.load("tiny", device="cpu"))
    run.generate(Scripted(bodies), lambda *told: None)
    real = checks.run_python

    def failing(source, **options):
        if "has_close_elements" in source:
            options["sandbox"] = Sandbox("rlimit", "/no/such/python")
        return real(source, **options)

    monkeypatch.setattr(checks, "run_python", failing)
    run.grade(Judge(2))
    figures = results_of(run).figures[0]
    assert (figures.n, figures.accuracy, figures.unjudged) == (2, 1.0, 1)
    assert "NOT JUDGED, and in no figure: llada: 1." in table(results_of(run))
    monkeypatch.setattr(checks, "run_python", real)
    assert call(["eval", "report", str(tmp_path)]) == 0
    figures = results_of(read_run(tmp_path)).figures[0]
    assert (figures.n, figures.accuracy, figures.unjudged) == (3, 1.0, 0)


@pytest.mark.parametrize(
    ("task", "shots", "protocol"), [("gsm8k_cot", 8, "dream-base"), ("gsm8k_cot", 0, "dream")]
)
def test_prompts_are_those_of_the_harness(task, shots, protocol, tmp_path):
    lm_eval = pytest.importorskip("lm_eval")
    import yaml

    folder = Path(lm_eval.__file__).parent / "tasks" / "gsm8k"
    config = yaml.safe_load((folder / "gsm8k-cot.yaml").read_text())
    file = written(tmp_path, "gsm8k")
    config |= {"dataset_path": "json", "dataset_name": None, "num_fewshot": shots}
    config["dataset_kwargs"] = {"data_files": {"test": str(file)}}
    from lm_eval.api.task import ConfigurableTask

    theirs = ConfigurableTask(config=config)
    (doc,) = theirs.test_docs()
    chosen = get_protocol("gsm8k", protocol)
    examples = shown_examples(SHIPPED / "shots" / f"{chosen.shown}.jsonl") if shots else ()
    (item,) = LOADERS["gsm8k"](file)
    ours = chosen.ask(item, examples).prompt
    assert theirs.fewshot_context(doc, shots) == (ours if shots else ours[0]["content"])


def test_code_of_the_bundled_sets_that_cannot_be_run_is_not_judged(monkeypatch):
    item = next(item for item in bundled_items("code", "test", 1))
    assert grade(item, item.answer, Judge()).right
    real = checks.run_python
    broken = Sandbox("rlimit", "/no/such/python")
    monkeypatch.setattr(checks, "run_python", lambda s, **o: real(s, **o | {"sandbox": broken}))
    assert grade(item, item.answer, Judge()) is None


def test_a_report_asks_before_it_runs_code_without_a_sandbox(tmp_path, capsys):
    """The folder may be somebody else's."""
    protocol = get_protocol("humaneval")
    run = benchmark_run(tmp_path, protocol, limit=1, sandbox="rlimit")
    run.open(dlm.load("tiny", device="cpu"))
    (item,) = run.sets["humaneval"]
    run.generate(Scripted({json.dumps(item.prompt): solved(item)}), lambda *told: None)
    assert call(["eval", "report", str(tmp_path)]) == 2
    assert "--allow-unsafe-code" in capsys.readouterr().err
    assert call(["eval", "report", str(tmp_path), "--allow-unsafe-code"]) == 0
    assert results_of(read_run(tmp_path)).figures[0].accuracy == 1.0
    assert call(["eval", "report", str(tmp_path)]) == 0, "there is nothing left to run"


def test_sandboxes_that_do_not_work_here(monkeypatch, capsys):
    monkeypatch.setattr(Sandbox, "works", lambda self: self.kind == "rlimit")
    assert call(["eval", "humaneval", "--sandbox", "bwrap"]) == 2
    assert "`sandbox`: must be one that works on this machine; bwrap" in capsys.readouterr().err


def test_fail_under_counts_exactly(tmp_path, monkeypatch):
    """29 of 100 is 29%, which floats do not say."""
    protocol = get_protocol("humaneval")
    run = benchmark_run(tmp_path, protocol, limit=100)
    run.open(dlm.load("tiny", device="cpu"))
    told = {
        json.dumps(item.prompt): solved(item) if n < 29 else "no"
        for n, item in enumerate(run.sets["humaneval"])
    }
    run.generate(Scripted(told), lambda *told: None)
    options = ["--limit", "100", "--out", str(tmp_path), "--quiet", "--allow-unsafe-code"]
    assert call(["eval", "humaneval", *options, "--fail-under", "29"]) == 0
    assert call(["eval", "humaneval", *options, "--fail-under", "29.1"]) == 1


def test_examples_are_drawn_as_the_harness_draws_them(tmp_path, monkeypatch):
    monkeypatch.setenv("DLM_DATA", str(tmp_path))
    written = []
    for name, count in (("gsm8k", 3), ("gsm8k-train", 7473)):
        path = tmp_path / FILES[name].path
        path.parent.mkdir(exist_ok=True)
        rows = [{"question": f"{name} {n}?", "answer": f"#### {n}"} for n in range(count)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        written.append((name, replace(FILES[name], sha256=sha256(path.read_bytes()).hexdigest())))
    monkeypatch.setattr(data, "FILES", {**FILES, **dict(written)})
    items = benchmark_items(get_protocol("gsm8k", "fastdllm"))
    drawn = [re.findall(r"gsm8k-train (\d+)", item.prompt[0]["content"]) for item in items]
    assert [list(map(int, each)) for each in drawn[:2]] == [
        [6374, 3610, 957, 61, 742],
        [7462, 6610, 4769, 286, 5501],
    ]
