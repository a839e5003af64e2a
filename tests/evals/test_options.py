"""Options of `dlm eval` that make no sense: one line and exit code 2, before anything is done."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import dlm
from dlm.cli.app import run as call
from dlm.errors import InvalidRequest
from dlm.evals.benchmarks import get_protocol
from dlm.evals.harness.arguments import read_arguments
from dlm.evals.run import benchmark_run, bundled_run
from dlm.evals.settings import Setting, draws_alike, slug

SCRIPTS = Path(__file__).parents[2] / "evals"
COMMANDS = ("bundled", "strategies", "caches", "humaneval")
FAR = "seed=9223372036854775807"


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """What a refused command says; nothing may be loaded, and nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    for name in ("load", "load_causal"):
        monkeypatch.setattr(dlm, name, lambda *a, **k: pytest.fail("a model was loaded"))

    def run(line):
        before = sorted(Path().iterdir())
        assert call(["eval", *shlex.split(line)]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.strip().count("\n") == 0, "one line"
        assert "this is a bug" not in told.err
        assert sorted(Path().iterdir()) == before
        return told.err

    return run


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("value", [0, -3])
@pytest.mark.parametrize("option", ["limit", "threads", "workers", "rows", "samples"])
def test_counts_below_one(command, option, value, refused):
    if option == "samples" and command in ("strategies", "caches"):
        return
    told = f"`{option}`: must be at least 1, got {value}"
    more = "--allow-unsafe-code" if command == "humaneval" else ""
    assert told in refused(f"{command} --{option} {value} {more}")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("bundled --tasks ,", "`tasks`: must be names with commas, each given, got ','"),
        ("bundled --tasks ' '", "`tasks`: must be names with commas, each given"),
        ("bundled --tasks ''", "`tasks`: must be names with commas, each given"),
        ("bundled --tasks math,,code", "`tasks`: must be names with commas, each given"),
        ("strategies --tasks math,math", "`tasks`: must name each once, got 'math' twice"),
        ("caches --tasks nope", "must be one of 'code'"),
        ("bundled --rungs ,", "`rungs`: must be names with commas"),
        ("bundled --rungs nope", "`rungs`: must be one of"),
        ("bundled --tasks math,code --rungs hard", "`rungs`: must name one of 'code' too"),
        ("bundled --config ''", "`config`: must have a name or options"),
        ("bundled --config ': unmask=topk'", "`config`: must have a name or options"),
        ("bundled --config 'a: unmask=topk' --config 'a: steps=3'", "two settings are called 'a'"),
        (
            "bundled --config 'A b: steps=4' --config 'a-b: steps=3'",
            "two settings are called 'a-b'",
        ),
        ("bundled --config 'a: steps=4, steps=5'", "`steps` is given twice"),
        ("bundled --config 'run.json: unmask=topk'", "must not be called 'run.json'"),
        ("bundled --config 'a: n=4'", "`n`: is no option here: --samples"),
        ("bundled --config 'a: trace=True'", "`trace`: is no option here"),
        ("bundled --config 'a: infill=[None]'", "`infill`: is no option here"),
        ("bundled --config 'a: seed=abc'", "`seed`: must be a 64-bit integer, got 'abc'"),
        (f"bundled --config 'a: {FAR}' --samples 2", "`seed`: must be a 64-bit integer"),
        ("bundled --config 'a: temperature=-1'", "`temperature`: must be a finite number"),
        ("bundled --config 'a: temperature=1e999'", "`temperature`: must be a finite number"),
        ("bundled --split train", "must be one of 'test', 'dev'"),
        ("bundled --model /nowhere", "`model`: must be a folder"),
        ("bundled --endpoint http://127.0.0.1:9/v1 --dtype float32", "`dtype`: is of a model here"),
        ("humaneval --endpoint http://x/v1 --device cpu", "`device`: is of a model here"),
        ("bundled --out taken", "`out`: must be a folder that can be written, got taken"),
        ("bundled --out taken/below/it", "`out`: must be a folder that can be written"),
        ("bundled --out /proc/nowhere/run", "`out`: must be a folder that can be written"),
        ("humaneval --allow-unsafe-code --out taken", "`out`: must be a folder that can be"),
        ("humaneval --protocol nope", "got 'nope'"),
        ("humaneval --allow-unsafe-code --data-file nowhere", "looked for nowhere"),
        ("humaneval --allow-unsafe-code --data-file taken", "is not the published humaneval"),
        ("humaneval --allow-unsafe-code --sweep ,", "`sweep`: must be names with commas"),
        ("humaneval --allow-unsafe-code --sweep 0.9,nan", "must be numbers in (0, 1], got nan"),
        ("humaneval --allow-unsafe-code --sweep inf", "must be numbers in (0, 1], got inf"),
        ("humaneval --allow-unsafe-code --sweep 0.9,0.9", "`sweep`: must name each once"),
        ("humaneval --allow-unsafe-code --sweep much", "must be numbers with commas, got 'much'"),
        ("humaneval --fail-under nan", "`fail-under`: must be a number between 0 and 100"),
        ("humaneval --fail-under -1", "`fail-under`: must be a number between 0 and 100"),
        ("gsm8k --sandbox bwrap", "`sandbox`: is of benchmarks that run code, not of gsm8k"),
        ("humaneval --sandbox nope", "`sandbox`: must be one of"),
        ("strategies --sweeps ,", "`sweeps`: must be names with commas"),
        ("strategies --sweeps nope", "`sweeps`: must be one of"),
        ("caches --unmask nope", "must be one of 'ancestral'"),
        ("caches --unmask ''", "must be one of 'ancestral'"),
        ("report nowhere", "holds no run"),
        ("report . --workers 0", "`workers`: must be at least 1, got 0"),
        ("compare nowhere nowhere", "holds no run"),
        ("fetch gsm8k nope", "`data`: must be one of"),
        ("bundled --limit many", "Invalid value for '--limit'"),
        ("nope", "No such command 'nope'"),
    ],
)
def test_what_is_refused(line, told, refused):
    Path("taken").touch()
    assert told in refused(line)


def test_an_unknown_baseline_is_refused_before_grading(tmp_path, monkeypatch, capsys):
    run = bundled_run(tmp_path / "run", [Setting("a")], tasks=["format"], limit=1)
    run.open(dlm.load("tiny", device="cpu"))
    monkeypatch.setattr(type(run), "grade", lambda *a: pytest.fail("it was graded"))
    assert call(["eval", "report", str(tmp_path / "run"), "--baseline", "nope"]) == 2
    assert "`baseline`: must be one of a, got 'nope'" in capsys.readouterr().err


@pytest.mark.parametrize("limit", [0, -3])
def test_limits_of_runs_made_in_python(limit, tmp_path):
    for made in (
        lambda: bundled_run(tmp_path, [Setting("a")], tasks=["math"], limit=limit),
        lambda: benchmark_run(tmp_path, get_protocol("humaneval"), limit=limit),
    ):
        with pytest.raises(InvalidRequest, match=f"`limit`: must be at least 1, got {limit}"):
            made()


def test_names_of_settings_stay_inside_the_folder():
    assert slug("..") == slug("/") == slug("...") == "default"
    assert slug("../../x") == "x"
    assert slug("threshold 0.9") == "threshold-0.9"
    assert slug("быстро") != slug("медленно"), "letters of any script"
    long, other = slug("x" * 400), slug("x" * 401)
    assert len(long.encode()) <= 120
    assert long != other
    assert len(slug("ы" * 400).encode()) <= 120


def test_draws_that_are_all_the_same_are_said(tmp_path, capsys):
    cold, warm = Setting("cold"), Setting("warm", {"temperature": 0.5})
    only = Setting("likeliest", {"temperature": 1.0, "top_k": 1})
    assert draws_alike([cold, warm, only], 16) == ["cold", "likeliest"]
    assert draws_alike([cold, warm, only], 1) == []
    assert draws_alike([Setting("sdar", get_protocol("gsm8k", "sdar").options)], 2) == ["sdar"]
    more = ["--config", "cold: max_new_tokens=16", "--samples", "2"]
    command = ["eval", "bundled", "--tasks", "format", "--limit", "2", "--out", str(tmp_path)]
    assert call([*command, *more]) == 0
    shown = capsys.readouterr()
    assert "--samples 2 at temperature 0: " in shown.err
    assert "one answer under 'cold'" in shown.err
    assert "cold: all samples of each item are the same text, so they say no more than one" in (
        shown.out
    )


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": "-2"}, "batch_size"),
        ({"mc_num": 0}, "mc_num"),
        ({"mc_batch": -1}, "mc_batch"),
        ({"mc_cfg_scale": float("nan")}, "mc_cfg_scale"),
        ({"kv_bytes": 0}, "kv_bytes"),
        ({"kv_bytes": "much"}, "kv_bytes"),
        ({"temperature": float("nan")}, "temperature"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"escape_until": "maybe"}, "escape_until"),
    ],
)
def test_arguments_of_the_harness(arguments, name):
    with pytest.raises(InvalidRequest) as found:
        read_arguments(arguments)
    assert found.value.param == name


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("batching.py --rows 3", "unrecognized arguments: --rows 3"),
        ("published_answers.py", "required: folder"),
        ("published_answers.py .", "holds no answers"),
        ("oracle.py nope", "'nope' is no benchmark"),
        ("tables.py nope", "no table is called 'nope'"),
    ],
)
def test_scripts(line, told, tmp_path):
    script, *arguments = line.split()
    root = str(SCRIPTS.parent)
    run = subprocess.run(
        [sys.executable, SCRIPTS / script, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": root, "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert run.returncode == 2, run.stderr
    assert told in run.stderr
    assert "Traceback" not in run.stderr
