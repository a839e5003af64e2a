"""Runs: drawing, grading and reporting as stages that can stop and go on."""

import json
import re
from dataclasses import asdict, replace

import pytest

import dlm
from dlm.cli.app import run as call
from dlm.errors import InvalidRequest
from dlm.evals.graders import Judge
from dlm.evals.items import SIZES, Item, bundled_items, digest, draw_items, read_items
from dlm.evals.report import table, write_report
from dlm.evals.results import results_of
from dlm.evals.run import Run, bundled_run, estimate, read_run
from dlm.evals.sampling import Plan, draw_samples, read_samples
from dlm.evals.settings import Setting, parse_setting
from dlm.evals.summary import figures_of
from dlm.evals.tasks import TASKS, split_of
from dlm.evals.tasks.mix import sample
from dlm.evals.verdicts import grade_samples, read_verdicts
from tests.evals.scripted import Scripted
from tests.helpers import random_decoder, tiny_spec

GREEDY = Setting("greedy", {"unmask": "topk", "blocks": "fixed(8)"})
FAST = Setting("fast", {"unmask": "threshold(0.7)", "cache": "dual"})
WARM = Setting("warm", {"unmask": "threshold(0.7)", "temperature": 0.9})


@pytest.fixture(scope="module")
def engine():
    return dlm.load("tiny", device="cpu")


# test sets


@pytest.mark.parametrize("task", TASKS)
def test_bundled_sets_are_what_the_generators_draw(task):
    for split, count in SIZES:
        items = bundled_items(task, split)
        assert 200 < len(items) <= count
        again = draw_items(task, split, 40)
        assert items[:40] == again
        assert len({item.id for item in items}) == len({i.prompt for i in items}) == len(items)
    assert not {i.prompt for i in items} & {i.prompt for i in bundled_items(task, "test")}


@pytest.mark.parametrize("task", TASKS)
def test_references_are_right_and_other_answers_wrong(task):
    items = bundled_items(task, "test", 30)
    assert all(item.grade(item.answer) for item in items)
    assert not any(item.grade("") or item.grade("???") for item in items)


def test_held_out_structures_are_not_of_training():
    import random

    rng = random.Random(3)
    for _ in range(200):
        assert split_of(sample(rng, "train").key) == "train"


def test_wrong_sets_are_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="must be one of 'code', "):
        bundled_items("maths", "test")
    with pytest.raises(InvalidRequest, match="must be one of 'test', 'dev', got 'train'"):
        bundled_items("math", "train")
    (tmp_path / "x.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(InvalidRequest, match=r"x\.jsonl, line 1"):
        read_items(tmp_path / "x.jsonl")


# settings


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("fast: unmask=threshold(0.9), cache=dual", "fast",
         {"unmask": "threshold(0.9)", "cache": "dual"}),
        ("steps=32, unmask=topk('entropy', 'eps')", "steps=32, unmask=topk('entropy', 'eps')",
         {"steps": 32, "unmask": "topk('entropy', 'eps')"}),
        ("two: stop=['a', 'b'], temperature=0.5", "two", {"stop": ["a", "b"], "temperature": 0.5}),
        ("none:", "none", {}),
    ],
)  # fmt: skip
def test_settings_are_read_as_they_are_written(text, name, options):
    assert parse_setting(text) == Setting(name, options)


@pytest.mark.parametrize(
    ("text", "message"),
    [("x: unmask", "must be 'name: option=value, ...', got 'unmask'"),
     ("x: umask=topk", "did you mean 'unmask'")],
)  # fmt: skip
def test_wrong_settings_are_refused(text, message):
    with pytest.raises(InvalidRequest, match=re.escape(message)):
        parse_setting(text)


# stages


def without_seconds(path):
    return sorted(
        (asdict(replace(s, seconds=0.0)) for s in read_samples(path)),
        key=lambda line: (line["item"], line["index"]),
    )


@pytest.mark.parametrize(("samples", "rows"), [(1, 1), (2, 3)])
def test_an_interrupted_stage_goes_on_to_the_same_end(engine, tmp_path, samples, rows):
    plan = Plan(bundled_items("format", "test", 5), WARM, samples, rows, max_new_tokens=24)
    draw_samples(engine, plan, tmp_path / "whole.jsonl")
    path, count = tmp_path / "parts.jsonl", 0

    def stop(sample):
        nonlocal count
        count += 1
        if count in (2, 4):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            draw_samples(engine, plan, path, stop)
        assert engine.kv.pages.in_use == 0
    with path.open("a") as file:
        file.write('{"item": "format-te')  # a line cut short by a crash
    draw_samples(engine, plan, path)
    assert len(read_samples(path)) == 5 * samples
    assert without_seconds(path) == without_seconds(tmp_path / "whole.jsonl")


def test_samples_of_an_item_are_different_draws(tmp_path):
    items = bundled_items("format", "test", 2)
    fake = Scripted({item.prompt: item.answer for item in items})
    draw_samples(fake, Plan(items, Setting("s", {"seed": 7}), samples=3), tmp_path / "s.jsonl")
    assert [options["seed"] for _, options in fake.asked] == [7, 8, 9] * 2


@pytest.mark.parametrize("task", TASKS)
def test_an_oracle_is_always_right_and_junk_never(task, tmp_path):
    items = bundled_items(task, "test", 12)
    for name, answer in (("oracle", lambda i: i.answer), ("junk", lambda i: "no idea")):
        paths = [tmp_path / f"{name}.{kind}.jsonl" for kind in ("samples", "verdicts")]
        fake = Scripted({item.prompt: answer(item) for item in items})
        draw_samples(fake, Plan(items, Setting(name), rows=4), paths[0])
        verdicts = grade_samples(items, *paths, judge=Judge(2))
        assert verdicts == read_verdicts(paths[1])
        figures = figures_of(name, items, read_samples(paths[0]), verdicts)
        assert figures.accuracy == (name == "oracle")
        assert figures.n == 12
        assert sum(n for _, n in figures.rungs.values()) == 12
        words = sum(len(answer(item).split()) for item in items)
        assert figures.nfe == words / 12
        assert figures.tpf == 2.0
        assert figures.tokens_per_second == pytest.approx(2 * words / 6.0)
        assert figures.p50 == figures.p95 == 0.5


def test_an_answer_with_holes_is_wrong(tmp_path):
    (item,) = bundled_items("format", "test", 1)
    draw_samples(Scripted({item.prompt: item.answer}), Plan([item], GREEDY), tmp_path / "s.jsonl")
    (line,) = (tmp_path / "s.jsonl").read_text().splitlines()
    holed = json.loads(line) | {"masked_left": 1}
    (tmp_path / "s.jsonl").write_text(json.dumps(holed) + "\n")
    assert grade_samples([item], tmp_path / "s.jsonl", tmp_path / "v.jsonl") == {
        (item.id, 0): False
    }
    with pytest.raises(InvalidRequest, match="not one of the set"):
        grade_samples([], tmp_path / "s.jsonl", tmp_path / "w.jsonl")


def test_the_same_answer_is_judged_once(tmp_path, monkeypatch):
    """Whatever settings gave it; one with holes is another answer."""
    items, asked = bundled_items("format", "test", 3), []
    grade = Item.grade
    monkeypatch.setattr(Item, "grade", lambda item, text: asked.append(text) or grade(item, text))
    run = Run(tmp_path, {"format": items}, [GREEDY, FAST, WARM])
    answers = {item.prompt: item.answer for item in items}
    for setting in run.settings:
        said = answers if setting is not WARM else answers | {items[0].prompt: "no"}
        draw_samples(
            Scripted(said), run.plan(setting, "format"), run.path(setting, "format", "samples")
        )
    path = run.path(FAST, "format", "samples")
    lines = path.read_text().splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | {"masked_left": 1})
    path.write_text("\n".join(lines) + "\n")
    run.grade()
    assert sorted(asked) == sorted([*answers.values(), "no"])
    rights = [sum(read_verdicts(run.path(s, "format", "verdicts")).values()) for s in run.settings]
    assert rights == [3, 2, 2]


def test_several_samples_give_pass_at_k(tmp_path):
    items = bundled_items("format", "test", 4)
    verdicts = {(item.id, i): i < n for n, item in enumerate(items) for i in range(3)}
    fake = Scripted({item.prompt: item.answer for item in items})
    draw_samples(fake, Plan(items, WARM, samples=3), tmp_path / "s.jsonl")
    figures = figures_of("warm", items, read_samples(tmp_path / "s.jsonl"), verdicts)
    assert figures.accuracy == pytest.approx((0 + 1 + 2 + 3) / 12)
    assert figures.pass_at_k == 0.75
    assert figures.samples == 3
    del verdicts[items[0].id, 2]  # wrong, wrong, not judged
    figures = figures_of("warm", items, read_samples(tmp_path / "s.jsonl"), verdicts)
    assert figures.pass_at_k == 1.0, "the other three, each right at least once"
    assert figures.unjudged == 1


def test_verdicts_that_a_crash_cut_short_are_made_again(tmp_path):
    items = bundled_items("format", "test", 3)
    fake = Scripted({item.prompt: item.answer for item in items})
    files = tmp_path / "s.jsonl", tmp_path / "v.jsonl"
    draw_samples(fake, Plan(items, GREEDY), files[0])
    whole = grade_samples(items, *files)
    files[1].write_text(files[1].read_text()[:-9])
    assert grade_samples(items, *files) == whole
    assert len(files[1].read_text().splitlines()) == 3


# whole runs


def test_a_run_from_nothing_to_its_report(engine, tmp_path):
    folder = tmp_path / "run"
    run = bundled_run(folder, [GREEDY, FAST], tasks=["math", "format"], limit=4)
    header = run.open(engine)
    assert header["items"]["math"] == {"n": 4, "sha256": digest(bundled_items("math", "test", 4))}
    assert estimate(engine, run, probe=1) > 0
    assert run.missing() == 16
    seen = []
    run.generate(engine, lambda setting, task, sample: seen.append((setting.name, task)))
    assert run.missing() == 0
    assert len(seen) == 16
    run.grade()
    results = results_of(run)
    write_report(results, folder)
    data = json.loads((folder / "results.json").read_text())
    assert data["baseline"] == "greedy"
    assert {(f["setting"], f["task"]) for f in data["figures"]} == {
        (s, t) for s in ("greedy", "fast") for t in ("math", "format")
    }
    assert [c["setting"] for c in data["comparisons"]] == ["fast", "fast"]
    assert (folder / "table.md").read_text() == table(results)
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InvalidRequest, match="holds a run with other rows"):
        replace(run, rows=2).open(engine)
    again = read_run(folder)
    assert results_of(again).figures == results.figures
    assert results_of(again, "fast").comparisons[0].setting == "greedy"


def test_a_run_over_some_rungs(engine, tmp_path):
    run = bundled_run(
        tmp_path, [WARM], tasks=["math", "drill"], rungs=["hard", "1-digit"], limit=2, samples=2
    )
    assert {(i.task, i.rung) for s in run.sets.values() for i in s} == {
        ("math", "hard"),
        ("drill", "1-digit"),
    }
    assert run.open(engine)["rungs"] == ["hard", "1-digit"]
    run.generate(engine, lambda *told: None)
    run.grade()
    assert read_run(tmp_path).sets == run.sets
    results = results_of(read_run(tmp_path))
    assert "| TPF | positions | tokens/s | p50 s | p95 s | pass@2 |" in table(results)
    batched = replace(results, header={**results.header, "rows": 4})
    assert "| TPF | positions | pass@2 |" in table(batched), "seconds of mates are no speeds"


def test_a_table_shows_the_rungs_where_there_are_several(engine, tmp_path):
    run = bundled_run(tmp_path, [FAST], tasks=["math", "format"], limit=12)
    run.open(engine)
    run.generate(engine, lambda *told: None)
    run.grade()
    math, form = table(results_of(run)).split("### format")
    assert "| p95 s | crowded | easy | hard | medium |" in math
    assert "| p95 s |\n" in form


def test_a_folder_keeps_to_its_run(engine, tmp_path):
    run = bundled_run(tmp_path, [GREEDY], tasks=["format"], limit=2)
    run.open(engine)
    run.open(engine)
    for other in (replace(run, samples=2), replace(run, settings=[FAST])):
        with pytest.raises(InvalidRequest, match="holds a run with other"):
            other.open(engine)
    with pytest.raises(InvalidRequest, match="must be one of greedy, got 'slow'"):
        results_of(run, "slow")
    with pytest.raises(InvalidRequest, match="holds no run"):
        read_run(tmp_path / "nowhere")


def test_rungs_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(
        InvalidRequest, match=r"rungs.*'crowded', 'easy', 'hard', 'medium', got 'harder'"
    ):
        bundled_run(tmp_path, [GREEDY], tasks=["math"], rungs=["harder"])
    with pytest.raises(InvalidRequest, match=r"'code' too \(1-op, .*, 8-op\)"):
        bundled_run(tmp_path, [GREEDY], tasks=["math", "code"], rungs=["hard"])


def test_runs_that_make_no_sense_are_refused(tmp_path):
    items = {"format": bundled_items("format", "test", 1)}
    for settings, options, message in (
        ([], {}, "at least one setting"),
        ([GREEDY, replace(FAST, name="Greedy!")], {}, "two settings are called 'greedy'"),
        ([GREEDY], {"samples": 0}, "`samples`: must be at least 1, got 0"),
        ([GREEDY], {"rows": 0}, "`rows`: must be at least 1, got 0"),
    ):
        with pytest.raises(InvalidRequest, match=re.escape(message)):
            Run(tmp_path, items, settings, **options)


def test_the_command(tmp_path, capsys):
    out = str(tmp_path / "run")
    command = ["eval", "bundled", "--tasks", "format", "--limit", "3", "--out", out]
    settings = ["--config", "slow: unmask=topk", "--config", "quick: unmask=threshold(0.5)"]
    assert call([*command, *settings]) == 0
    shown = capsys.readouterr()
    assert "### format (n = 3)" in shown.out
    assert "| slow |" in shown.out
    assert "6 answers to draw, about 0:00:0" in shown.err
    assert call([*command, *settings]) == 0
    assert "0 answers to draw" in capsys.readouterr().err
    assert call(["eval", "report", out, "--baseline", "quick"]) == 0
    assert "| quick |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("bundled --tasks sums", "must be one of 'code'"),
        ("bundled --config x:unmask=nothing", "must be one of 'ancestral', 'dynamic'"),
        ("bundled --config x:cache=block_causal", "exact only for block-causal models"),
        ("bundled --split train", "must be one of 'test', 'dev'"),
        ("report nowhere", "holds no run"),
    ],
)
def test_wrong_commands_say_what_is_right(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(["eval", *arguments.split()]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_autoregressive_row(engine, tmp_path):
    """A causal model beside the settings, kept apart in the header."""
    spec = tiny_spec(vocab_size=1024, attention="causal", mask_id=None, eos_ids=(3,))
    twin = dlm.CausalEngine(random_decoder(spec), (3,), engine.text, name="twin")
    row = Setting("autoregressive", causal=True)
    run = bundled_run(tmp_path, [FAST, row], tasks=["format"], limit=3)
    header = run.open(engine, twin)
    assert header["causal"]["attention"] == "causal"
    assert estimate(engine, run, twin, probe=1) > 0
    run.generate(engine, lambda *told: None, twin)
    run.grade()
    results = results_of(read_run(tmp_path))
    (found,) = (f for f in results.figures if f.setting == "autoregressive")
    assert found.tpf <= 1.0
    assert found.nfe >= found.tokens
    with pytest.raises(InvalidRequest, match="needs a causal model"):
        replace(run, folder=tmp_path / "other").generate(engine, lambda *told: None)
