"""Reports of runs that are unfinished, empty or damaged: a table, or one line that says where."""

import json
import random
import shutil

import pytest

import dlm
from dlm.cli.app import run as call
from dlm.evals.benchmarks import get_protocol
from dlm.evals.graders import Judge
from dlm.evals.run import benchmark_run, bundled_run, read_run
from dlm.evals.sampling import draw_samples, read_samples
from dlm.evals.settings import Setting
from dlm.evals.strategies import sweep_settings
from tests.evals.scripted import Scripted

MORE = ("sessions", "packages", "protocol", "machine")
SETTINGS = [
    Setting("warm", {"unmask": "topk", "temperature": 0.7}),
    *sweep_settings(["factor"]),
]


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """Pictures take longest: only where a test is about them."""
    if "plot" not in request.node.name and "empty" not in request.node.name:
        monkeypatch.setattr("dlm.evals.report.plot", lambda runs, path: path.touch())


@pytest.fixture(scope="module")
def engine():
    return dlm.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def whole(engine, tmp_path_factory):
    """A finished run: two tasks, a sweep, two samples an item."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run = bundled_run(folder, SETTINGS, tasks=["format", "math"], limit=3, samples=2)
    run.open(engine)
    said = {item.prompt: item.answer for items in run.sets.values() for item in items}
    for n, setting in enumerate(run.settings):
        told = said if n % 2 else said | {next(iter(said)): "no"}
        for task in run.sets:
            files = run.path(setting, task, "samples")
            draw_samples(Scripted(told), run.plan(setting, task), files)
    run.grade(Judge(1))
    assert call(["eval", "report", str(folder)]) == 0
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def reported(folder, capsys, code=0):
    capsys.readouterr()
    assert call(["eval", "report", str(folder)]) == code
    shown = capsys.readouterr()
    if code:
        assert shown.err.strip().count("\n") == 0
        assert shown.err.startswith("dlm: error: `")
        return shown.err
    return shown.out


def samples_of(folder):
    return sorted(folder.glob("*/*.samples.jsonl"))


# unfinished and empty


def test_an_empty_run(engine, tmp_path, capsys):
    bundled_run(tmp_path / "run", SETTINGS, tasks=["format"], limit=4).open(engine)
    told = reported(tmp_path / "run", capsys)
    assert "### format (n = 0)" in told
    assert "| warm | - | - | - | - | - | - | - | - | - | - | - |" in told
    assert "UNFINISHED, answers still to draw: warm: 4; " in told
    assert "| sweep |" not in told
    data = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [row["missing"] for row in data["figures"]] == [4] * len(SETTINGS)
    assert data["figures"][0]["accuracy"] is None
    assert (tmp_path / "run" / "plot.png").is_file()


def test_an_unfinished_run(folder, capsys):
    """Its last setting has no answers, the one before has one."""
    paths = samples_of(folder)
    shutil.rmtree(folder / "factor-2.0")
    part = folder / "factor-1.0" / "math.samples.jsonl"
    assert part in paths
    part.write_text(part.read_text().splitlines(keepends=True)[0])
    shutil.rmtree(folder / "factor-0.5")
    told = reported(folder, capsys).split("### math")[1]
    assert "| factor(2.0) | - | - |" in told
    assert (
        "UNFINISHED, answers still to draw: factor(0.5): 6; factor(1.0): 5; factor(2.0): 6." in told
    )
    assert "To the baseline over the items that both have: " in told
    assert "factor(1.0): 1" in told
    assert "(n = 1)" in told, "what all settings of the sweeps have"


def test_a_last_line_cut_short(folder, capsys):
    path = samples_of(folder)[0]
    path.write_bytes(path.read_bytes()[:-20])
    cut = path.read_bytes()
    assert "answers still to draw: " in reported(folder, capsys)
    assert path.read_bytes() == cut, "a report changes no answers: they may be being written"


def test_without_what_reports_leave_and_among_other_files(folder, capsys):
    before = reported(folder, capsys)
    for name in ("results.json", "table.md", "plot.png"):
        (folder / name).unlink()
    (folder / "notes.txt").write_text("mine")
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "format.samples.jsonl").write_text("{not mine\n")
    (folder / "warm" / "other.samples.jsonl").write_text("{not mine\n")
    assert reported(folder, capsys) == before


def test_an_answer_that_stands_twice_counts_once(folder, capsys):
    before = reported(folder, capsys)
    path = samples_of(folder)[0]
    path.write_text(path.read_text() * 2)
    assert reported(folder, capsys) == before


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{broken", "line 2 cannot be read (Expecting"),
        ("[1, 2]", "must be a JSON object, got list"),
        ("{}", "missing or unknown: arm_forwards"),
        ('{"item": "x"', "cannot be read"),
        ("\x00\x01", "cannot be read"),
        ("null", "must be a JSON object, got NoneType"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_a_line_that_is_none_is_named(line, told, folder, capsys):
    path = samples_of(folder)[0]
    path.write_text(path.read_text().splitlines(keepends=True)[0] + line + "\n")
    said = reported(folder, capsys, 2)
    assert f"{path}, line 2" in said
    assert told in said
    assert "delete the line, and its content is made again" in said


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"nfe": "many"}, "`nfe` must be of type int"),
        ({"nfe": -1}, "`nfe` must be a finite number of at least 0"),
        ({"seconds": float("nan")}, "`seconds` must be a finite number"),
        ({"text": None}, "`text` must be of type str"),
        ({"index": True}, "`index` must be of type int"),
        ({"more": 1}, "missing or unknown: more"),
        ({"item": "another"}, "not one of the set"),
    ],
)
def test_a_sample_that_is_none_is_named(change, told, folder, capsys):
    path = samples_of(folder)[0]
    line = json.loads(path.read_text().splitlines()[0])
    path.write_text(json.dumps(line | change) + "\n")
    assert told in reported(folder, capsys, 2)


@pytest.mark.parametrize("what", ["samples", "verdicts"])
def test_bytes_that_are_no_text(what, folder, capsys):
    path = next(folder.glob(f"*/*.{what}.jsonl"))
    path.write_bytes(b"\xff\xfe\x00\n")
    assert f"{path}, line 1" in reported(folder, capsys, 2)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "run.json is damaged"),
        ("{", "run.json is damaged"),
        ("[]", "it holds no JSON object"),
        ("{}", "`settings` must be of type dict, got None"),
        ('{"format": 99}', "is of format 99, which dlm"),
        ('{"format": "new"}', "is of format 'new', which dlm"),
        ('{"format": null}', "is of format None, which dlm"),
    ],
)
def test_a_damaged_header(content, told, folder, capsys):
    (folder / "run.json").write_text(content)
    assert told in reported(folder, capsys, 2)


@pytest.mark.parametrize(
    "name", ["settings", "items", "samples", "rows", "split", "rungs", "model", *MORE]
)
@pytest.mark.parametrize("value", [None, "x", -1, [], {}, {"a": 1}, {"a": {}}])
def test_a_header_with_other_values(name, value, folder, capsys):
    header = json.loads((folder / "run.json").read_text())
    if value is None:
        header.pop(name, None)
    else:
        header[name] = value
    (folder / "run.json").write_text(json.dumps(header))
    capsys.readouterr()
    code = call(["eval", "report", str(folder)])
    shown = capsys.readouterr().err
    assert code == 2 or (code == 0 and name in ("model", "rungs", *MORE))
    assert "this is a bug" not in shown


def test_one_damaged_run_among_several(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "second")
    shutil.copytree(folder, tmp_path / "third")
    (tmp_path / "second" / "run.json").write_text("{")
    samples_of(tmp_path / "third")[0].write_text("{broken\n")
    assert call(["eval", "report", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert shown.err.count("left out: ") == 2
    assert shown.out.count("LEFT OUT: ") == 2
    assert shown.out.count("## tiny: format, math") == 1
    assert call(["eval", "report", str(tmp_path), "--baseline", "nope"]) == 2
    (folder / "run.json").write_text("{")
    assert call(["eval", "report", str(tmp_path)]) == 2


def damaged(path, rng):
    """One random damage to a file."""
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content) + 1)
    match rng.randrange(7):
        case 0:
            path.unlink()
            return
        case 1:
            content = content[:at]
        case 2:
            content[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 30)))
        case 3:
            lines = content.splitlines(keepends=True)
            rng.shuffle(lines)
            content = b"".join(lines[: rng.randrange(len(lines) + 1)])
        case 4:
            content[at : at + rng.randrange(1, 60)] = b""
        case 5:
            content = content.replace(b"true", b"false").replace(b": 1", b": -1")
        case 6:
            content += rng.choice([b"\n", b"{}\n", b"null\n", b'{"item": 1}', bytes(content)])
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("seed", range(16))
def test_whatever_is_damaged_gives_a_table_or_a_line(seed, folder, capsys):
    rng = random.Random(seed)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    for path in rng.sample(files, rng.randrange(1, 5)):
        damaged(path, rng)
    if rng.random() < 0.2:
        shutil.rmtree(rng.choice([p for p in folder.iterdir() if p.is_dir()]))
    capsys.readouterr()
    code = call(["eval", "report", str(folder)])
    shown = capsys.readouterr()
    assert code in (0, 2), shown.err
    if code == 2:
        assert shown.err.strip().count("\n") == 0
    else:
        assert "### format" in shown.out
        json.loads((folder / "results.json").read_text(), parse_constant=pytest.fail)


def test_a_plot_of_names_that_are_formulas(engine, tmp_path, capsys):
    names = ["$x_", "_hidden", "a|b", "$\\frac{$"]
    settings = [Setting(name, {"unmask": "topk"}) for name in names]
    run = bundled_run(tmp_path, settings, tasks=["format"], limit=1)
    run.open(engine)
    for setting in settings:
        said = {item.prompt: item.answer for item in run.sets["format"]}
        files = run.path(setting, "format", "samples")
        draw_samples(Scripted(said), run.plan(setting, "format"), files)
    told = reported(tmp_path, capsys)
    assert "| a/b |" in told


def test_items_of_a_benchmark_that_were_edited(engine, tmp_path, capsys):
    run = benchmark_run(tmp_path / "run", get_protocol("humaneval"), limit=2)
    run.open(engine)
    path = tmp_path / "run" / "items.jsonl"
    whole = path.read_text()
    assert "### humaneval (n = 0)" in reported(tmp_path / "run", capsys)
    for content, told in (
        (whole.replace("def ", "def  ", 1), "not those that"),
        (whole.splitlines()[0], "not those that"),
        ("{}\n", "items.jsonl, line 1"),
        ("", "not those that"),
    ):
        path.write_text(content)
        assert told in reported(tmp_path / "run", capsys, 2)
    path.write_bytes(b"\xff\n")
    assert "items.jsonl" in reported(tmp_path / "run", capsys, 2)


def test_a_run_that_went_on_after_damage_is_whole(folder, engine):
    """Deleting what cannot be read is all that has to be done."""
    run = read_run(folder)
    path = samples_of(folder)[0]
    path.write_bytes(path.read_bytes()[:-20])
    said = {item.prompt: item.answer for items in run.sets.values() for item in items}
    setting, task = next(c for c in run.cells if run.path(*c, "samples") == path)
    draw_samples(Scripted(said), run.plan(setting, task), path)
    assert len(read_samples(path)) == 6
    run.grade(Judge(1))
    assert not run.ungraded()
    assert run.missing() == 0
