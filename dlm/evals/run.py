"""A run: every setting on every task, in a folder that its three stages fill one after the other.

`<setting>/<task>.samples.jsonl` and `.verdicts.jsonl` hold answers and verdicts, `run.json` the
settings; an interrupted run continues where it was, and a report needs no model.
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
from dlm.evals.estimating import chosen, estimate
from dlm.evals.graders import Judge, check_grader
from dlm.evals.header import HEADER, must_be_same, planned, read_header, run_header
from dlm.evals.items import Item, bundled_items, check_limit, digest, dumped, read_items
from dlm.evals.lines import check_writable
from dlm.evals.sampling import Plan, Sample, draw_samples, read_samples
from dlm.evals.settings import Setting, check_setting, slug
from dlm.evals.tasks import Split, get_task
from dlm.evals.verdicts import Judged, grade_samples, grader_digest, valid_marks

__all__ = ["HEADER", "Run", "benchmark_run", "bundled_run", "estimate", "read_run", "runs_in"]

ITEMS: Final = "items.jsonl"
"""The items of a run over a benchmark, so that its answers can be graded again."""
KEPT: Final = frozenset({HEADER, ITEMS, "results.json", "table.md", "plot.png"})
"""Files of a run's folder, whose names no setting's folder may have."""


@dataclass(frozen=True, slots=True)
class Run:
    """Settings on test sets (task -> items), and the folder of their answers.

    samples: answers to an item
    rows: requests in flight at once; seconds are those of single requests only if it is 1
    split, rungs: of the bundled sets
    protocol: of a benchmark (None: bundled sets)
    sandbox: its kind, if code is run
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
        if kept := KEPT.intersection(names):
            raise InvalidRequest("config", f"a setting must not be called {min(kept)!r}, as a file")
        for name, value in (("samples", self.samples), ("rows", self.rows)):
            if value < 1:
                raise InvalidRequest(name, f"must be at least 1, got {value}")
        if not self.settings:
            raise InvalidRequest("config", "must be at least one setting")
        if not self.sets:
            raise InvalidRequest("tasks", "must be at least one task")
        for task, items in self.sets.items():
            ids = [item.id for item in items]
            if len(set(ids)) < len(ids):
                again = next(name for name in ids if ids.count(name) > 1)
                raise InvalidRequest("items", f"of {task!r} two have the id {again!r}")

    @property
    def cells(self) -> list[tuple[Setting, str]]:
        """Every setting on every task."""
        return list(product(self.settings, self.sets))

    def path(self, setting: Setting, task: str, kind: str) -> Path:
        """The file of a cell: `samples` or `verdicts`."""
        return self.folder / slug(setting.name) / f"{task}.{kind}.jsonl"

    def plan(self, setting: Setting, task: str) -> Plan:
        """Build the plan of one cell: a setting on a task."""
        items = self.sets[task]
        if self.protocol is None:
            return Plan(items, setting, self.samples, self.rows, get_task(task).canvas)
        return Plan(items, setting, self.samples, self.rows)

    def check(self) -> None:
        """Check, without a model, that the run can begin or resume.

        Raises `InvalidRequest` for settings that ask for what cannot be evaluated, for a folder
        that cannot be written, and for one that holds another run.
        """
        for setting in self.settings:
            check_setting(setting, self.samples)
        check_writable(self.folder)
        if (self.folder / HEADER).is_file():
            before = read_header(self.folder)
            plan = planned(self.sets, self.settings, **self._header_options())
            loaded = {name: before.get(name) for name in ("model", "causal")}
            must_be_same(self.folder, before, {**plan, **loaded})
        elif any(self.path(*cell, "samples").is_file() for cell in self.cells):
            unknown = f"{self.folder} holds answers of which no {HEADER} says what gave them"
            raise InvalidRequest("out", f"{unknown}: choose another --out, or delete it")

    def _header_options(self) -> dict[str, Any]:
        """Collect the run's options other than items and settings for its header."""
        found: dict[str, Any] = {
            "split": self.split,
            "rungs": list(self.rungs),
            "samples": self.samples,
            "rows": self.rows,
        }
        if self.protocol is not None:
            found["protocol"] = self.protocol.as_data() | {"sandbox": self.sandbox}
        return found

    def open(
        self, engine: dlm.Engine | Endpoint, causal: dlm.CausalEngine | None = None
    ) -> dict[str, Any]:
        """Write the header, or check that the present one is of the same run and add a session.

        Raises `InvalidRequest` as `check` does, and for another model, tokenizer or prompt.
        """
        self.check()
        more = self._header_options()
        if isinstance(engine, Endpoint):
            asked = {s.name: s.options for s in self.settings if not s.causal}
            more["unsent"] = engine.unsent(asked)
        header = run_header(engine, self.sets, self.settings, causal, **more)
        if (self.folder / HEADER).is_file():
            before = read_header(self.folder)
            must_be_same(self.folder, before, header)
            now = {**before, "protocol": header["protocol"]} if "protocol" in header else before
            if self.missing():
                now = {**now, "sessions": [*before.get("sessions", ()), *header["sessions"]]}
            if now != before:
                self._write(now)
            return now
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.protocol is not None:
            (self.folder / ITEMS).write_bytes(b"".join(map(dumped, self.sets.values())))
        self._write(header)
        return header

    def _write(self, header: Mapping[str, Any]) -> None:
        """Write the header at once: a crash leaves the old one or the new one."""
        path = self.folder / f".{HEADER}"
        path.write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
        path.replace(self.folder / HEADER)

    def generate(
        self,
        engine: dlm.Engine | Endpoint,
        tell: Callable[[Setting, str, Sample], None],
        causal: dlm.CausalEngine | None = None,
    ) -> None:
        """The first stage: draw the missing answers, cell by cell."""
        for setting, task in self.cells:
            path = self.path(setting, task, "samples")
            runner = chosen(setting, engine, causal)
            tell_sample = partial(tell, setting, task)
            draw_samples(runner, self.plan(setting, task), path, tell_sample)

    def grade(self, judge: Judge | None = None) -> None:
        """The second stage: judge answers without a verdict, equal ones once."""
        judged: dict[str, Judged] = {task: {} for task in self.sets}
        grader = grader_digest(self.sandbox)
        with judge or Judge() as chosen_judge:
            for setting, task in self.cells:
                samples, path = (self.path(setting, task, kind) for kind in ("samples", "verdicts"))
                if not samples.is_file():
                    continue
                how: dict[str, Any] = {"judge": chosen_judge, "grader": grader}
                grade_samples(self.sets[task], samples, path, judged=judged[task], **how)

    def ungraded(self) -> bool:
        """True if some answers have no verdict of the current graders."""
        grader = grader_digest(self.sandbox)
        for setting, task in self.cells:
            samples = read_samples(self.path(setting, task, "samples"))
            path = self.path(setting, task, "verdicts")
            if len(valid_marks(path, samples, grader)) < len(samples):
                return True
        return False

    def missing(self) -> int:
        """Number of answers still to be drawn."""
        wanted = sum(len(items) for items in self.sets.values()) * self.samples * len(self.settings)
        there = (len(read_samples(self.path(s, task, "samples"))) for s, task in self.cells)
        return wanted - sum(there)


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

    A setting takes its other options from the protocol, and is called custom. Raises
    `InvalidRequest` where something that the grader or the problems need is not here.
    """
    check_grader(protocol.grader)
    check_limit(limit)
    items = benchmark_items(protocol, limit=limit, file=file)
    own = Setting(protocol.name, protocol.options)
    others = [
        replace(s, name=f"custom: {s.name}", options={**protocol.options, **s.options})
        for s in settings
    ]
    sets, settings = {protocol.benchmark: items}, [own, *others]
    return Run(folder, sets, settings, samples, rows, protocol=protocol, sandbox=sandbox)


def read_run(folder: Path) -> Run:
    """The run whose header is in `folder`, over the sets it was made of.

    Raises `InvalidRequest` when there is none, when it is damaged, or when the sets have changed.
    """
    header = read_header(folder)
    try:
        settings = [
            Setting(name, entry["options"], entry["causal"], entry.get("sweep", ""))
            for name, entry in header["settings"].items()
        ]
        sums = {task: (entry["n"], entry["sha256"]) for task, entry in header["items"].items()}
        sandbox = str(header.get("protocol", {}).get("sandbox", ""))
    except (AttributeError, KeyError, TypeError) as error:
        raise InvalidRequest("run", f"{folder / HEADER} is damaged: {error!r}") from error
    split, rungs = header["split"], header["rungs"]
    if (folder / ITEMS).is_file():
        known = read_items(folder / ITEMS)
        sets = {task: [item for item in known if item.task == task] for task in sums}
    else:
        sets = {task: bundled_items(task, split, n, rungs) for task, (n, _) in sums.items()}
    for task, found in sets.items():
        if digest(found) != sums[task][1]:
            wrong = f"the items of {task!r} are not those that {folder} answers"
            raise InvalidRequest("run", wrong)
    counts = header["samples"], header["rows"]
    return Run(folder, sets, settings, *counts, split, rungs, sandbox=sandbox)


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
