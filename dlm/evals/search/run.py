"""A run: methods on problems, seed by seed, in a folder that an interrupted run goes on from.

`<task>/items.jsonl` holds the problems, `<task>/<method>.<seed>.jsonl` the trials, `run.json` what
decides them, and `cpu.jsonl` the processor time of each session.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, Final

import dlm
from dlm.errors import InvalidRequest
from dlm.evals.header import session, weights_digest
from dlm.evals.identity import code_identity, differences, in_words
from dlm.evals.items import Item, bundled_items, digest, dumped, read_items
from dlm.evals.lines import appending, check_writable, read_lines
from dlm.evals.sampling import asked
from dlm.evals.search.judges import Judgement, draw_judgements, read_judgements
from dlm.evals.search.methods import MOST, OWN, search_options
from dlm.evals.search.problems import problems
from dlm.evals.search.trials import CLOCK, Trial, cpu_seconds, draw_trials, read_trials
from dlm.evals.settings import Setting, slug
from dlm.evals.tasks import Split, get_task

HEADER: Final = "search.json"
FIXED_ONCE: Final = ("code", "model", "split", "most")
"""Entries of the header that never change."""
PROBE: Final = 16
"""Items of which an answer is drawn to know the forwards of a single one."""


@dataclass(frozen=True, slots=True)
class SearchRun:
    """Methods on tasks.

    methods: task -> its methods
    split, limit: of the problems of each task
    seeds: searches on an item by each method, with the seeds 0, 1, ...
    at_once: searches under way together
    most: answers of the first method whose forwards a search may spend
    """

    folder: Path
    methods: Mapping[str, Sequence[Setting]]
    split: Split = "dev"
    limit: int = 200
    seeds: int = 1
    at_once: int = 32
    most: int = MOST
    _items: dict[str, list[Item]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for task, methods in self.methods.items():
            names = [slug(method.name) for method in methods]
            if twice := {name for name in names if names.count(name) > 1}:
                raise InvalidRequest("method", f"two of {task!r} are called {min(twice)!r}")

    def items(self, task: str) -> list[Item]:
        """The problems of a task, kept in the folder once they are drawn."""
        if task not in self._items:
            path = self.folder / task / "items.jsonl"
            kept = read_items(path) if path.is_file() else []
            self._items[task] = kept if len(kept) == self.limit else self._drawn(task, path)
        return self._items[task]

    def _drawn(self, task: str, path: Path) -> list[Item]:
        items = problems(task, self.split, self.limit)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dumped(items))
        return items

    def path(self, task: str, method: Setting, seed: int) -> Path:
        """The file of the trials of a method with a seed; methods of equal options share one."""
        alike = [one for one in self.methods[task] if one.options == method.options]
        name = (alike or [method])[0].name
        return self.folder / task / f"{slug(name)}.{seed}.jsonl"

    def trials(self, task: str, method: Setting) -> list[dict[str, Trial]]:
        """Item -> trial, for each seed."""
        return [read_trials(self.path(task, method, seed)) for seed in range(self.seeds)]

    def cells(self) -> Iterator[tuple[str, Setting, int]]:
        """Task, method and seed of each file."""
        for seed in range(self.seeds):
            for task, methods in self.methods.items():
                yield from ((task, method, seed) for method in methods)

    def missing(self) -> int:
        """Number of trials still to be drawn."""
        paths = {self.path(*cell) for cell in self.cells()}
        return self.limit * len(paths) - sum(len(read_trials(path)) for path in paths)

    def check(self) -> None:
        """Raise `InvalidRequest`, before a model is there, for what cannot be drawn or written."""
        check_writable(self.folder)
        for task, methods in self.methods.items():
            bundled_items(task, self.split, 1)
            for method in methods:
                options = self.options(task, method)
                plain = {n: value for n, value in options.items() if n not in OWN}
                dlm.GenerationConfig.from_options(plain)

    def open(self, engine: dlm.Engine) -> dict[str, Any]:
        """Write the header, or check that the folder's is of the same run; methods may be added.

        Raises `InvalidRequest` for a folder that cannot be written, or holds another run.
        """
        self.check()
        path = self.folder / HEADER
        header = self._identity(engine)
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        apart = differences(
            {name: before[name] for name in FIXED_ONCE if name in before},
            {name: header[name] for name in FIXED_ONCE if name in before},
        )
        self._check_limit(before.get("items", {}))
        kinds = [("items", header, before)]
        old_methods = before.get("methods", {})
        kinds += [(task, header["methods"], old_methods) for task in header["methods"]]
        for kind, now, then in kinds:
            own, old = now[kind], then.get(kind, {})
            both = own.keys() & old.keys()
            apart += differences({n: old[n] for n in both}, {n: own[n] for n in both})
            now[kind] = {**old, **own}
        header["methods"] = {**old_methods, **header["methods"]}
        if apart:
            wrong = f"{self.folder} holds another run ({in_words(apart)})"
            raise InvalidRequest("out", f"{wrong}: choose another --out, or delete it")
        header["sessions"] = [*before.get("sessions", ()), session()]
        path.write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
        return header

    def _check_limit(self, known: Mapping[str, Mapping[str, Any]]) -> None:
        """Raise `InvalidRequest` where the folder holds another number of a task's problems."""
        for task in self.methods:
            count = known.get(task, {}).get("n", self.limit)
            if count != self.limit:
                rule = f"must be {count} for {self.folder}, which holds a run of as many problems"
                raise InvalidRequest("limit", f"{rule}, got {self.limit}: or choose another --out")

    def whole(self, header: Mapping[str, Any]) -> SearchRun:
        """The same with the methods of earlier sessions that have all their trials."""
        methods = dict(self.methods)
        for task, own in self.methods.items():
            named = {method.name for method in own}
            others = (Setting(*known) for known in header["methods"][task].items())
            more = [one for one in others if one.name not in named and self._is_drawn(task, one)]
            methods[task] = [*own, *more]
        return replace(self, methods=methods)

    def _is_drawn(self, task: str, method: Setting) -> bool:
        """True if a method has a trial of each item with each seed."""
        return all(len(found) == self.limit for found in self.trials(task, method))

    def _identity(self, engine: dlm.Engine) -> dict[str, Any]:
        """All that decides the trials."""
        items = {task: self.items(task) for task in self.methods}
        written: dict[str, Any] = json.loads(
            json.dumps(
                {
                    "code": code_identity(),
                    "model": {"name": engine.name, "sha256": weights_digest(engine.model)},
                    "split": self.split,
                    "most": self.most,
                    "items": {t: {"n": len(i), "sha256": digest(i)} for t, i in items.items()},
                    "methods": {
                        task: {method.name: dict(method.options) for method in methods}
                        for task, methods in self.methods.items()
                    },
                },
                default=repr,
            )
        )
        return written

    def draw(self, engine: dlm.Engine, tell: Callable[[str, Setting, Trial], object]) -> None:
        """Draw the missing trials, and note the processor time that they took."""
        budgets: dict[str, int] = {}
        for task, method, seed in self.cells():
            path, items = self.path(task, method, seed), self.items(task)
            before = cpu_seconds()
            if len(read_trials(path)) == len(items):
                continue
            if task not in budgets:
                budgets[task] = self.budget(engine, task)
            options = {**self.options(task, method), "seed": seed, "budget": {"nfe": budgets[task]}}
            try:
                told = partial(tell, task, method)
                draw_trials(engine, items, options, path, self.at_once, told)
            finally:
                self._note(task, method, seed, cpu_seconds() - before)

    def judge(self, engine: dlm.Engine, task: str) -> list[Judgement]:
        """Have the verifiers of a task's first method judge the same answers to each item."""
        method = self.methods[task][0]
        options = self.options(task, method)
        judges = options.pop("verifier")
        path, before = self.path(task, method, 0), cpu_seconds()
        if len(read_judgements(path)) < self.limit:
            try:
                draw_judgements(engine, self.items(task), judges, options, path, self.at_once)
            finally:
                self._note(task, method, 0, cpu_seconds() - before)
        return list(read_judgements(path).values())

    def _note(self, task: str, method: Setting, seed: int, seconds: float) -> None:
        """Note processor time."""
        spent = {"task": task, "method": method.name, "seed": seed, "seconds": seconds}
        with appending(self.folder / CLOCK, wait=True) as file:
            file.write(json.dumps(spent) + "\n")

    def options(self, task: str, method: Setting) -> dict[str, Any]:
        """The options of a method's searches but for the seed."""
        return {"max_new_tokens": get_task(task).canvas, **search_options(method)}

    def budget(self, engine: dlm.Engine, task: str) -> int:
        """The forwards that a search may spend: those of `most` answers of the first method."""
        given = self.options(task, self.methods[task][0])
        plain = {name: value for name, value in given.items() if name not in OWN}
        items = self.items(task)[:PROBE]
        drawn = engine.generate([asked(engine, item) for item in items], **plain)
        mean = sum(one.stats.nfe for one in drawn) / len(drawn)
        return ceil(self.most * float(mean))

    def seconds(self) -> float:
        """Processor time of all sessions."""
        return sum(read_lines(self.folder / CLOCK, lambda line: float(line["seconds"])))
