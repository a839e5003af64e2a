"""Two runs beside each other: what one setting answers and what another one does, item by item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dlm.errors import InvalidRequest, unknown_name
from dlm.evals.grading import read_verdicts
from dlm.evals.report_sweeps import table_line
from dlm.evals.run import Run
from dlm.evals.sampling import read_samples
from dlm.evals.settings import Setting
from dlm.evals.statistics import Paired, paired


@dataclass(frozen=True, slots=True)
class Beside:
    """A setting of one run against a setting of another, on the items of a task that both have.

    `accuracy` of each, over `n` items · `paired`: the second's less the first's · `same`: the share
    of answers that are the same text.
    """

    task: str
    n: int
    accuracy: tuple[float, float]
    paired: Paired
    same: float


def compare_runs(
    runs: tuple[Run, Run], settings: tuple[str | None, str | None] = (None, None)
) -> list[Beside]:
    """Settings by their names, the first of each run where none is given.

    Raises `InvalidRequest` for unknown names, and where the runs share no item.
    """
    chosen = [_setting(run, name) for run, name in zip(runs, settings, strict=True)]
    found = []
    for task in (task for task in runs[0].sets if task in runs[1].sets):
        asked = [{item.id: item for item in run.sets[task]} for run in runs]
        shared = {name for name in asked[0] if asked[0][name] == asked[1].get(name)}
        answers = [_answers(run, s, task) for run, s in zip(runs, chosen, strict=True)]
        names = sorted(shared & answers[0].keys() & answers[1].keys())
        if not names:
            continue
        marks = [[given[name][0] for name in names] for given in answers]
        same = sum(answers[0][name][1] == answers[1][name][1] for name in names)
        accuracy = sum(marks[0]) / len(names), sum(marks[1]) / len(names)
        pair = paired(*marks)
        found.append(Beside(task, len(names), accuracy, pair, same / len(names)))
    if not found:
        raise InvalidRequest("run", "the two share no item that both have answered")
    return found


def _setting(run: Run, name: str | None) -> Setting:
    known = {setting.name: setting for setting in run.settings}
    if name is None:
        return run.settings[0]
    if name not in known:
        raise unknown_name("setting", name, known)
    return known[name]


def _answers(run: Run, setting: Setting, task: str) -> dict[str, tuple[bool, str]]:
    """Item -> whether its first answer is right, and its text."""
    verdicts = read_verdicts(run.path(setting, task, "verdicts"))
    samples = read_samples(run.path(setting, task, "samples"))
    first = (s for s in samples if s.index == 0 and (s.item, 0) in verdicts)
    return {s.item: (verdicts[s.item, 0], s.text) for s in first}


def comparison_table(found: Sequence[Beside]) -> str:
    """A Markdown table: accuracies, the paired difference in points, who alone is right."""
    head = ["task", "n", "first", "second", "difference", "only first", "only second", "p"]
    head += ["same text"]
    lines = [table_line(head), table_line(["---"] * len(head))]
    for row in found:
        pair, (low, high) = row.paired, row.paired.interval
        lines.append(
            table_line(
                [
                    row.task,
                    str(row.n),
                    f"{100 * row.accuracy[0]:.1f}%",
                    f"{100 * row.accuracy[1]:.1f}%",
                    f"{100 * pair.difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})",
                    str(pair.lost),
                    str(pair.gained),
                    f"{pair.p:.2g}",
                    f"{100 * row.same:.0f}%",
                ]
            )
        )
    return "\n".join(lines) + "\n"
