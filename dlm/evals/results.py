"""The third stage of a run: what its files come to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dlm.errors import InvalidRequest
from dlm.evals.grading import mean_scores, read_marks
from dlm.evals.run import HEADER, Run
from dlm.evals.sampling import read_samples
from dlm.evals.summary import Answers, Comparison, Figures, compare, figures_of
from dlm.evals.sweeps import Spent, SweepFigures, marks_of, sweeps_of


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
    marks: dict[tuple[str, str], Spent] = {}
    for setting, task in run.cells:
        judged = read_marks(run.path(setting, task, "verdicts"))
        found = {key: mark.right for key, mark in judged.items()}
        samples = read_samples(run.path(setting, task, "samples"))
        answers[setting.name][task] = Answers(found, {(s.item, s.index): s.text for s in samples})
        own = figures_of(setting.name, run.sets[task], samples, found)
        figures.append(replace(own, scores=mean_scores(judged)))
        marks[setting.name, task] = marks_of(samples, found)
    base = answers.pop(chosen)
    header = json.loads((run.folder / HEADER).read_text(encoding="utf-8"))
    comparisons = compare(base, answers)
    sweeps = sweeps_of(run.settings, figures, comparisons, marks)
    return Results(header, chosen, figures, comparisons, sweeps)
