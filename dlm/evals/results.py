"""The third stage of a run: what its files come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dlm.errors import InvalidRequest
from dlm.evals.header import read_header
from dlm.evals.run import Run
from dlm.evals.sampling import read_samples
from dlm.evals.summary import (
    Answers,
    Comparison,
    Figures,
    compare,
    figures_of,
    mean,
    share_interval,
)
from dlm.evals.sweeps import Spent, SweepFigures, marks_of, sweeps_of
from dlm.evals.verdicts import grader_digest, scores_of, valid_marks


@dataclass(frozen=True, slots=True)
class Results:
    """A run's figures, the comparisons with its baseline, what its sweeps come to, its header."""

    header: Mapping[str, Any]
    baseline: str
    figures: Sequence[Figures]
    comparisons: Sequence[Comparison]
    sweeps: Sequence[SweepFigures] = ()


def check_baseline(run: Run, baseline: str | None) -> str:
    """The name of the setting to compare with. Raises `InvalidRequest` for an unknown one."""
    names = [setting.name for setting in run.settings]
    chosen = names[0] if baseline is None else baseline
    if chosen not in names:
        raise InvalidRequest("baseline", f"must be one of {', '.join(names)}, got {chosen!r}")
    return chosen


def results_of(run: Run, baseline: str | None = None) -> Results:
    """The third stage, from the files alone. `baseline`: a setting's name, else the first."""
    chosen, grader = check_baseline(run, baseline), grader_digest(run.sandbox)
    answers: dict[str, dict[str, Answers]] = {setting.name: {} for setting in run.settings}
    figures: list[Figures] = []
    marks: dict[tuple[str, str], Spent] = {}
    for setting, task in run.cells:
        samples = read_samples(run.path(setting, task, "samples"))
        judged = valid_marks(run.path(setting, task, "verdicts"), samples, grader)
        found = {key: mark.right for key, mark in judged.items()}
        answers[setting.name][task] = Answers(found, {(s.item, s.index): s.text for s in samples})
        own = figures_of(setting.name, run.sets[task], samples, found, run.samples)
        scores = scores_of(judged)
        means = {name: mean(values) for name, values in scores.items()}
        bounds = {name: share_interval(values) for name, values in scores.items()}
        figures.append(replace(own, task=task, scores=means, score_intervals=bounds))
        marks[setting.name, task] = marks_of(samples, found)
    base = answers.pop(chosen)
    comparisons = compare(base, answers)
    sweeps = sweeps_of(run.settings, figures, comparisons, marks)
    return Results(read_header(run.folder), chosen, figures, comparisons, sweeps)
