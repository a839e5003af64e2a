"""A run: every setting on every task, in a folder that its three stages fill one after the other.

`<setting>/<task>.samples.jsonl` and `.verdicts.jsonl` hold what was answered and judged, `run.json`
says of what; an interrupted run goes on where it was, and a report needs no model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Final

import dlm
from dlm.errors import InvalidRequest, unknown_name
from dlm.evals.benchmarks import Protocol, benchmark_items
from dlm.evals.endpoint import Endpoint
from dlm.evals.grading import Judged, grade_samples, read_marks
from dlm.evals.header import run_header
from dlm.evals.items import Item, bundled_items, digest, dumped, read_items
from dlm.evals.judging import Judge, check_grader
from dlm.evals.sampling import Plan, Runner, Sample, answers, draw_samples, read_samples
from dlm.evals.settings import Setting, slug
from dlm.evals.tasks import Split, get_task

HEADER: Final = "run.json"
ITEMS: Final = "items.jsonl"
"""What a run over a benchmark has asked, so that its answers can be graded again."""
FIXED: Final = ("model", "causal", "items", "settings", "samples", "rows")
"""What a run must not change when it goes on."""


@dataclass(frozen=True, slots=True)
class Run:
    """Settings on test sets (task -> items), and the folder of what they gave.

    `samples`: answers an item · `rows`: requests in flight at once; seconds are those of single
    requests only when it is 1 · `split`, `rungs`: what the sets were taken from · `protocol`: of a
    benchmark (None: bundled sets) · `sandbox`: where its code is run.
    """

    folder: Path
    sets: Mapping[str, Sequence[Item]]
    settings: Sequence[Setting]
    samples: int = 1
    rows: int = 1
    split: Split = "test"
    rungs: Sequence[str] = ()
    protocol: Protocol | None = None
    sandbox: str = ""

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
        items = self.sets[task]
        if self.protocol is None:
            return Plan(items, setting, self.samples, self.rows, get_task(task).canvas)
        return Plan(items, setting, self.samples, self.rows)

    def open(
        self, engine: dlm.Engine | Endpoint, causal: dlm.CausalEngine | None = None
    ) -> dict[str, Any]:
        """Write the header, or check that what is there is of the same run."""
        told: dict[str, Any] = {
            "split": self.split,
            "rungs": list(self.rungs),
            "samples": self.samples,
            "rows": self.rows,
        }
        if self.protocol is not None:
            told["protocol"] = self.protocol.as_data() | {"sandbox": self.sandbox}
        if isinstance(engine, Endpoint):
            asked = {s.name: s.options for s in self.settings if not s.causal}
            told["unsent"] = engine.unsent(asked)
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
        if self.protocol is not None:
            (self.folder / ITEMS).write_bytes(b"".join(map(dumped, self.sets.values())))
        path.write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
        return header

    def generate(
        self,
        engine: dlm.Engine | Endpoint,
        tell: Callable[[Setting, str, Sample], None],
        causal: dlm.CausalEngine | None = None,
    ) -> None:
        """The first stage: answer what is missing, cell by cell."""
        for setting, task in self.cells:
            path = self.path(setting, task, "samples")
            runner = chosen(setting, engine, causal)
            told = partial(tell, setting, task)
            draw_samples(runner, self.plan(setting, task), path, told)

    def grade(self, judge: Judge | None = None) -> None:
        """The second stage: judge what has no verdict; what several settings answer, once."""
        judged: dict[str, Judged] = {task: {} for task in self.sets}
        with judge or Judge() as chosen_judge:
            for setting, task in self.cells:
                files = (self.path(setting, task, kind) for kind in ("samples", "verdicts"))
                own = judged[task]
                grade_samples(self.sets[task], *files, judge=chosen_judge, judged=own)

    def ungraded(self) -> bool:
        """Whether there are answers without a verdict."""
        for setting, task in self.cells:
            marks = read_marks(self.path(setting, task, "verdicts"))
            samples = read_samples(self.path(setting, task, "samples"))
            if any((sample.item, sample.index) not in marks for sample in samples):
                return True
        return False

    def missing(self) -> int:
        """How many answers are still to be drawn."""
        wanted = sum(len(items) for items in self.sets.values()) * self.samples * len(self.settings)
        there = (len(read_samples(self.path(s, task, "samples"))) for s, task in self.cells)
        return wanted - sum(there)


def chosen(
    setting: Setting, engine: dlm.Engine | Endpoint, causal: dlm.CausalEngine | None
) -> Runner:
    """The engine that answers under a setting."""
    if not setting.causal:
        return engine
    if causal is None:
        raise InvalidRequest("causal", f"the setting {setting.name!r} needs a causal model")
    return causal


def estimate(
    engine: dlm.Engine | Endpoint, run: Run, causal: dlm.CausalEngine | None = None, probe: int = 2
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
        probed = replace(plan, items=plan.items[:probe], samples=1)
        drawn = list(answers(runner, probed, probed.wanted))
        seconds += left * sum(sample.seconds for sample in drawn) / len(drawn)
    return seconds


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


def benchmark_run(
    folder: Path,
    protocol: Protocol,
    settings: Sequence[Setting] = (),
    *,
    limit: int | None = None,
    file: Path | None = None,
    samples: int = 1,
    rows: int = 1,
    sandbox: str = "",
) -> Run:
    """A run of a benchmark by a protocol: as it decodes, and as `settings` do instead.

    A setting takes what it does not say from the protocol, and is called custom. Raises
    `InvalidRequest` where the protocol's grader or problems need what is not here.
    """
    check_grader(protocol.grader)
    items = benchmark_items(protocol, limit=limit, file=file)
    own = Setting(protocol.name, protocol.options)
    others = [
        replace(s, name=f"custom: {s.name}", options={**protocol.options, **s.options})
        for s in settings
    ]
    return Run(
        folder,
        {protocol.benchmark: items},
        [own, *others],
        samples,
        rows,
        protocol=protocol,
        sandbox=sandbox,
    )


def read_run(folder: Path) -> Run:
    """The run whose header stands in `folder`, over the sets it was made of.

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
    split, items, rungs = header["split"], header["items"], header["rungs"]
    if (folder / ITEMS).is_file():
        known = read_items(folder / ITEMS)
        sets = {task: [item for item in known if item.task == task] for task in items}
    else:
        sets = {task: bundled_items(task, split, told["n"], rungs) for task, told in items.items()}
    for task, found in sets.items():
        if digest(found) != items[task]["sha256"]:
            raise InvalidRequest(
                "run", f"the items of {task!r} are not those that {folder} answers"
            )
    where = header.get("protocol", {}).get("sandbox", "")
    told = header["samples"], header["rows"], split, rungs
    return Run(folder, sets, settings, *told, sandbox=where)


def runs_in(folder: Path) -> list[Path]:
    """The folder, when it is that of a run, else the runs in its folders.

    Raises `InvalidRequest` when there is none.
    """
    if (folder / HEADER).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{HEADER}"))
    if not found:
        raise InvalidRequest("run", f"{folder} holds no run: there is no {HEADER} in it")
    return found
