"""What is compared with what: shares of all samples, over shared items, and what else differs."""

import json
import math
import random
from dataclasses import replace

import pytest

import dlm
from dlm.cli.app import run as call
from dlm.errors import InvalidRequest
from dlm.evals.comparing import compare_runs, describe_differences
from dlm.evals.graders import Judge
from dlm.evals.report import table
from dlm.evals.results import results_of
from dlm.evals.run import bundled_run, read_run
from dlm.evals.sampling import Sample, draw_samples
from dlm.evals.settings import Setting
from dlm.evals.statistics import holm, wilson
from dlm.evals.summary import Answers, compare, figures_of
from tests.evals.scripted import Scripted

COLD = Setting("cold", {"temperature": 0.2})
WARM = Setting("warm", {"temperature": 0.9})


@pytest.fixture(scope="module")
def engine():
    return dlm.load("tiny", device="cpu")


class Lucky(Scripted):
    """Answers right with a chance, by the seed of each sample."""

    def __init__(self, answers, chance):
        super().__init__(answers)
        self.chance = chance

    def submit(self, prompt, **options):
        lucky = random.Random(f"{prompt} {options['seed']}").random() < self.chance
        first = options["seed"] == 0  # sample 0 of every item is right under each setting
        return Scripted.Request(self.answers[prompt] if lucky or first else "no")


def drawn(folder, engine, chances, samples=16, limit=40, settings=(COLD, WARM)):
    """A run in which the settings are right by chance."""
    run = bundled_run(folder, settings, tasks=["format"], limit=limit, samples=samples)
    run.open(engine)
    answers = {item.prompt: item.answer for item in run.sets["format"]}
    for setting, chance in zip(settings, chances, strict=True):
        path = run.path(setting, "format", "samples")
        draw_samples(Lucky(answers, chance), run.plan(setting, "format"), path)
    run.grade(Judge(1))
    return run


def test_differences_are_those_of_all_samples(engine, tmp_path):
    run = drawn(tmp_path, engine, (0.7, 0.9))
    results = results_of(run)
    cold, warm = results.figures
    (found,) = results.comparisons
    assert found.paired.difference == pytest.approx(warm.accuracy - cold.accuracy)
    assert 0.1 < found.paired.difference < 0.3
    assert found.paired.interval.low > 0.05
    assert found.paired.n == 40
    assert found.p < 0.01
    assert 0.5 < found.same < 0.9, "of all samples, not of the first ones, which are alike"
    assert cold.pass_at_k == 1.0
    assert cold.pass_interval == wilson(40, 40)
    told = table(results)
    assert "### format (n = 40, 16 samples each)" in told
    assert "| 100.0% (91-100) |" in told
    assert "p of turned signs" in told


def test_every_interval_has_room(engine, tmp_path):
    """Two items that are always right are no certainty."""
    run = drawn(tmp_path, engine, (1.0, 1.0), samples=4, limit=2)
    told = table(results_of(run))
    assert "100.0-100.0" not in told
    assert "+0.0 (+0.0 to +0.0)" not in told
    assert "| cold | 100.0% | 34.2-100.0 |" in told
    assert "+0.0 (-65.8 to +65.8)" in told


def test_a_baseline_that_lacks_items():
    """Only items that both have are compared, and the family of tests is those that there are."""
    base = Answers({(f"i{n}", 0): n < 5 for n in range(10)}, {(f"i{n}", 0): "" for n in range(10)})
    ours = Answers(
        {(f"i{n}", 0): n < 9 for n in range(5, 15)}, {(f"i{n}", 0): "" for n in range(15)}
    )
    none = Answers({}, {})
    found = compare({"math": base}, {"a": {"math": ours}, "b": {"math": none}})
    assert (found[0].paired.n, found[0].paired.difference) == (5, 0.8)
    assert found[0].p == found[0].paired.p, "Holm over the one test"
    assert found[1].paired.n == 0
    assert math.isnan(found[1].p)
    assert math.isnan(found[1].paired.difference)


def test_samples_that_the_run_asks_for_count(engine, tmp_path):
    """pass@k and what is missing go by the run, not by what happens to be there."""
    run = drawn(tmp_path, engine, (0.5, 0.5), samples=3, limit=4)
    path = run.path(COLD, "format", "samples")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    cold, _ = results_of(run).figures
    assert (cold.samples, cold.missing) == (3, 7)
    assert cold.pass_at_k == 1.0, "the one item that has its three samples"
    whole = [Sample("x", 0, "", "stop", 1, 1, 1, 0, 1, 0.1, 0)]
    assert figures_of("s", run.sets["format"], whole, {}, 3).samples == 3


def test_runs_of_other_models_are_said_to_be(engine, tmp_path, capsys):
    one = drawn(tmp_path / "one", engine, (0.6, 0.9), samples=2)
    two = drawn(tmp_path / "two", engine, (0.8, 0.9), samples=2, limit=30)
    header = json.loads((two.folder / "run.json").read_text())
    header["model"] |= {"sha256": "0" * 64, "dtype": "torch.bfloat16"}
    (two.folder / "run.json").write_text(json.dumps(header))
    (found,) = compare_runs((one, two))
    assert (found.n, found.asked) == (30, (40, 30))
    assert found.p == found.paired.p
    assert call(["eval", "compare", str(one.folder), str(two.folder)]) == 0
    told = capsys.readouterr().out
    assert "They differ in model.dtype: torch.float32 and torch.bfloat16; model.sha256: " in told
    assert "| format | 30 of 40 and 30 |" in told
    assert describe_differences((one, one), ("cold", "cold")) == []
    assert describe_differences((one, one), ("cold", "warm")) == [
        "They differ in options.temperature: 0.2 and 0.9."
    ]


def test_verdicts_of_other_graders_are_not_compared(engine, tmp_path, capsys):
    one = drawn(tmp_path / "one", engine, (0.6, 0.9), samples=2, limit=4)
    path = one.path(COLD, "format", "verdicts")
    lines = [json.loads(line) | {"seal": "older"} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InvalidRequest, match="have no valid verdict: `dlm eval report"):
        compare_runs((one, one))
    assert call(["eval", "report", str(one.folder)]) == 0
    assert compare_runs((read_run(one.folder), one))


def test_items_asked_or_judged_otherwise_are_not_the_same(engine, tmp_path):
    one = drawn(tmp_path / "one", engine, (0.6, 0.9), samples=1, limit=4)
    items = [replace(i, meta={**i.meta, "grader": "other"}) for i in one.sets["format"]]
    with pytest.raises(InvalidRequest, match="share no item"):
        compare_runs((one, replace(one, sets={"format": items})))


def test_several_tasks_are_one_family(engine, tmp_path):
    run = bundled_run(tmp_path, [COLD, WARM], tasks=["format", "math"], limit=12)
    run.open(engine)
    for setting, wrong in ((COLD, 8), (WARM, 0)):
        for task, items in run.sets.items():
            said = {i.prompt: "no" if n < wrong else i.answer for n, i in enumerate(items)}
            path = run.path(setting, task, "samples")
            draw_samples(Scripted(said), run.plan(setting, task), path)
    run.grade(Judge(1))
    found = compare_runs((run, run), ("cold", "warm"))
    assert [row.p for row in found] == holm([row.paired.p for row in found])
    assert found[0].p == pytest.approx(2 * 2 * 0.5**8)
    assert "adjusted by Holm over the 2 comparisons of this run" in table(results_of(run))
