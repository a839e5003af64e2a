"""A run: every setting on every task, in a folder that its three stages fill one after the other.

`<setting>/<task>.samples.jsonl` and `.verdicts.jsonl` hold what was answered and judged, `run.json`
says of what; an interrupted run goes on where it was, and a report needs no model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Final

import dlm
from dlm.errors import InvalidRequest, unknown_name
from dlm.evals.grading import Judged, grade_samples, read_verdicts
from dlm.evals.header import run_header
from dlm.evals.items import Item, bundled_items, digest
from dlm.evals.sampling import Plan, Sample, draw_samples, read_samples
from dlm.evals.settings import Setting
from dlm.evals.summary import Answers, Comparison, Figures, compare, figures_of
from dlm.evals.sweeps import Marks, SweepFigures, marks_of, sweeps_of
from dlm.evals.tasks import Split, get_task

HEADER: Final = "run.json"
FIXED: Final = ("model", "causal", "items", "settings", "samples")
"""What a run must not change when it goes on."""


@dataclass(frozen=True, slots=True)
class Run:
    """Settings on test sets (task -> items), and the folder of what they gave.

    `samples`: answers an item · `rows`: requests in flight at once; seconds are those of single
    requests only when it is 1 · `split`, `rungs`: what the sets were taken from.
    """

    folder: Path
    sets: Mapping[str, Sequence[Item]]
    settings: Sequence[Setting]
    samples: int = 1
    rows: int = 1
    split: Split = "test"
    rungs: Sequence[str] = ()

    def __post_init__(self) -> None:
        names = [slug(setting.name) for setting in self.settings]
        if twice := {name for name in names if names.count(name) > 1}:
            raise InvalidRequest("config", f"two settings are called {min(twice)!r}: name them")
        for name, value in (("samples", self.samples), ("rows", self.rows)):
            if value < 1:
                raise InvalidRequest(name, f"must be at least 1, got {value}")
        if not self.settings:
            raise InvalidRequest("config", "must be at least one setting")

    @property
    def cells(self) -> list[tuple[Setting, str]]:
        """Every setting on every task."""
        return list(product(self.settings, self.sets))

    def path(self, setting: Setting, task: str, kind: str) -> Path:
        """The file of a cell: `samples` or `verdicts`."""
        return self.folder / slug(setting.name) / f"{task}.{kind}.jsonl"

    def plan(self, setting: Setting, task: str) -> Plan:
        """What a cell asks."""
        canvas = get_task(task).canvas
        return Plan(self.sets[task], setting, self.samples, self.rows, canvas)

    def open(self, engine: dlm.Engine, causal: dlm.CausalEngine | None = None) -> dict[str, Any]:
        """Write the header, or check that what is there is of the same run."""
        told = {
            "split": self.split,
            "rungs": list(self.rungs),
            "samples": self.samples,
            "rows": self.rows,
        }
        header = run_header(engine, self.sets, self.settings, causal, **told)
        path = self.folder / HEADER
        if path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            for name in FIXED:
                if before.get(name) != json.loads(json.dumps(header[name])):
                    raise InvalidRequest(
                        "out", f"{self.folder} holds a run with other {name}: choose another folder"
                    )
            found: dict[str, Any] = before
            return found
        self.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
        return header

    def generate(
        self,
        engine: dlm.Engine,
        tell: Callable[[Setting, str, Sample], None],
        causal: dlm.CausalEngine | None = None,
    ) -> None:
        """The first stage: answer what is missing, cell by cell."""
        for setting, task in self.cells:
            path = self.path(setting, task, "samples")
            runner = chosen(setting, engine, causal)
            told = partial(tell, setting, task)
            draw_samples(runner, self.plan(setting, task), path, told)

    def grade(self, *, workers: int = 1) -> None:
        """The second stage: judge what has no verdict; what several settings answer, once."""
        judged: dict[str, Judged] = {task: {} for task in self.sets}
        for setting, task in self.cells:
            files = (self.path(setting, task, kind) for kind in ("samples", "verdicts"))
            grade_samples(self.sets[task], *files, workers=workers, judged=judged[task])

    def missing(self) -> int:
        """How many answers are still to be drawn."""
        wanted = sum(len(items) for items in self.sets.values()) * self.samples * len(self.settings)
        there = (len(read_samples(self.path(s, task, "samples"))) for s, task in self.cells)
        return wanted - sum(there)


def chosen(
    setting: Setting, engine: dlm.Engine, causal: dlm.CausalEngine | None
) -> dlm.Engine | dlm.CausalEngine:
    """The engine that answers under a setting."""
    if not setting.causal:
        return engine
    if causal is None:
        raise InvalidRequest("causal", f"the setting {setting.name!r} needs a causal model")
    return causal


def estimate(
    engine: dlm.Engine, run: Run, causal: dlm.CausalEngine | None = None, probe: int = 2
) -> float:
    """Seconds that the missing answers will take, from `probe` answers of each cell.

    The probed answers are not kept; they also warm the machine up.
    """
    seconds = 0.0
    for setting, task in run.cells:
        plan, runner = run.plan(setting, task), chosen(setting, engine, causal)
        left = len(plan.wanted) - len(read_samples(run.path(setting, task, "samples")))
        if left <= 0:
            continue
        prompts = [item.prompt for item in plan.items[:probe]]
        answers = [runner.generate(p, **plan.options(0)) for p in prompts]
        seconds += left * sum(a.stats.seconds for a in answers) / len(answers)
    return seconds


@dataclass(frozen=True, slots=True)
class Results:
    """A run's figures, the comparisons with its baseline, what its sweeps come to, its header."""

    header: Mapping[str, Any]
    baseline: str
    figures: Sequence[Figures]
    comparisons: Sequence[Comparison]
    sweeps: Sequence[SweepFigures] = ()


def results_of(run: Run, baseline: str | None = None) -> Results:
    """The third stage, from the files alone. `baseline`: a setting's name, else the first."""
    names = [setting.name for setting in run.settings]
    chosen = names[0] if baseline is None else baseline
    if chosen not in names:
        raise InvalidRequest("baseline", f"must be one of {', '.join(names)}, got {chosen!r}")
    answers: dict[str, dict[str, Answers]] = {name: {} for name in names}
    figures: list[Figures] = []
    marks: dict[tuple[str, str], Marks] = {}
    for setting, task in run.cells:
        found = read_verdicts(run.path(setting, task, "verdicts"))
        samples = read_samples(run.path(setting, task, "samples"))
        answers[setting.name][task] = Answers(found, {(s.item, s.index): s.text for s in samples})
        figures.append(figures_of(setting.name, run.sets[task], samples, found))
        marks[setting.name, task] = marks_of(samples, found)
    base = answers.pop(chosen)
    header = json.loads((run.folder / HEADER).read_text(encoding="utf-8"))
    comparisons = compare(base, answers)
    sweeps = sweeps_of(run.settings, figures, comparisons, marks)
    return Results(header, chosen, figures, comparisons, sweeps)


def bundled_run(
    folder: Path,
    settings: Sequence[Setting],
    *,
    tasks: Sequence[str],
    split: Split = "test",
    limit: int | None = None,
    rungs: Sequence[str] = (),
    samples: int = 1,
    rows: int = 1,
) -> Run:
    """A run over the bundled test sets, or over those of their problems that are of `rungs`.

    Raises `InvalidRequest` for a rung that no task has, and for a task that has none of them.
    """
    sets = {task: bundled_items(task, split, limit, rungs) for task in tasks}
    known = {task: {item.rung for item in bundled_items(task, split)} for task in tasks}
    for rung in rungs:
        if not any(rung in found for found in known.values()):
            raise unknown_name("rungs", rung, sorted(set().union(*known.values())))
    for task in (task for task, items in sets.items() if not items):
        choices = ", ".join(sorted(known[task]))
        raise InvalidRequest("rungs", f"must name one of {task!r} too ({choices})")
    return Run(folder, sets, settings, samples, rows, split, rungs)


def read_run(folder: Path) -> Run:
    """The run whose header stands in `folder`, over the bundled sets it was made of.

    Raises `InvalidRequest` when there is none, or when the sets have changed since.
    """
    path = folder / HEADER
    if not path.is_file():
        raise InvalidRequest("run", f"{folder} holds no run: it has no {HEADER}")
    header = json.loads(path.read_text(encoding="utf-8"))
    settings = [
        Setting(name, told["options"], told["causal"], told.get("sweep", ""))
        for name, told in header["settings"].items()
    ]
    split, asked, rungs = header["split"], header["items"], header["rungs"]
    sets = {task: bundled_items(task, split, told["n"], rungs) for task, told in asked.items()}
    for task, items in sets.items():
        if digest(items) != asked[task]["sha256"]:
            raise InvalidRequest(
                "run", f"the items of {task!r} are not those that {folder} answers"
            )
    return Run(folder, sets, settings, header["samples"], header["rows"], split, rungs)


def slug(name: str) -> str:
    """A setting's name as a folder's."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-").lower() or "default"
