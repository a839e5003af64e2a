"""Two runs beside each other: what one setting answers and what another one does, item by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlm.errors import InvalidRequest, unknown_name
from dlm.evals.header import identity_of, read_header
from dlm.evals.identity import differences
from dlm.evals.report_sweeps import table_line
from dlm.evals.run import Run
from dlm.evals.sampling import read_samples
from dlm.evals.settings import Setting
from dlm.evals.statistics import Paired, holm
from dlm.evals.summary import Answers, beside, mean, shares_of
from dlm.evals.verdicts import grader_digest, valid_marks


@dataclass(frozen=True, slots=True)
class Beside:
    """A setting of one run against a setting of another, on the items of a task that both have.

    n: items that both have
    accuracy: of each, over these items
    paired: the second's less the first's
    same: share of answers that are the same text
    p: adjusted by Holm over the tasks
    asked: number of items of each run
    """

    task: str
    n: int
    accuracy: tuple[float, float]
    paired: Paired
    same: float
    p: float
    asked: tuple[int, int]


def compare_runs(
    runs: tuple[Run, Run], settings: tuple[str | None, str | None] = (None, None)
) -> list[Beside]:
    """Settings by their names, the first of each run where none is given.

    Only items that are asked and judged alike in both count. Raises `InvalidRequest`
    for unknown names, where answers have no verdict of the graders as they are now, and where the
    runs share no item.
    """
    compared = [_setting(run, name) for run, name in zip(runs, settings, strict=True)]
    rows = []
    for task in (task for task in runs[0].sets if task in runs[1].sets):
        items = [{item.id: item for item in run.sets[task]} for run in runs]
        shared = {name for name in items[0] if items[0][name] == items[1].get(name)}
        answers = [
            _answers(run, setting, task, shared)
            for run, setting in zip(runs, compared, strict=True)
        ]
        pair, same = beside(*answers)
        if not pair.n:
            continue
        shares = [shares_of(each.verdicts) for each in answers]
        both = shares[0].keys() & shares[1].keys()
        first, second = (mean([own[name] for name in sorted(both)]) for own in shares)
        rows.append((task, pair.n, (first, second), pair, same, tuple(map(len, items))))
    if not rows:
        raise InvalidRequest(
            "run", "the two share no item that both have answered: none is asked and judged alike"
        )
    adjusted = holm([pair.p for _, _, _, pair, _, _ in rows])
    return [
        Beside(*row[:5], p, (row[5][0], row[5][1])) for row, p in zip(rows, adjusted, strict=True)
    ]


def describe_differences(
    runs: tuple[Run, Run], settings: tuple[str | None, str | None] = (None, None)
) -> list[str]:
    """Describe the differences of two runs other than options: models, code, machines, items."""
    chosen = [_setting(run, name) for run, name in zip(runs, settings, strict=True)]
    headers = [read_header(run.folder) for run in runs]
    one, other = (_of(header, setting) for header, setting in zip(headers, chosen, strict=True))
    told = [text for _, text in differences(one, other, between=" and ")]
    lines = [f"They differ in {'; '.join(told)}."] if told else []
    alone = [t for t in dict.fromkeys([*runs[0].sets, *runs[1].sets])
             if not all(t in run.sets for run in runs)]  # fmt: skip
    if alone:
        lines.append(f"In one of them alone: {', '.join(alone)}.")
    return lines


def _of(header: Mapping[str, Any], setting: Setting) -> dict[str, Any]:
    """Select from a header the entries that decide the answers of one setting."""
    found = identity_of(header)
    names = ("code", "protocol", "aux", "samples", "rows")
    kept = {name: found.get(name) for name in names} | {"options": dict(setting.options)}
    kept["model"] = found.get("causal" if setting.causal else "model")
    return {name: value for name, value in kept.items() if value is not None}


def _setting(run: Run, name: str | None) -> Setting:
    known = {setting.name: setting for setting in run.settings}
    if name is None:
        return run.settings[0]
    if name not in known:
        raise unknown_name("setting", name, known)
    return known[name]


def _answers(run: Run, setting: Setting, task: str, shared: set[str]) -> Answers:
    """Read a setting's answers to the shared items. Raises `InvalidRequest` for old verdicts."""
    samples = [s for s in read_samples(run.path(setting, task, "samples")) if s.item in shared]
    path = run.path(setting, task, "verdicts")
    marks = valid_marks(path, samples, grader_digest(run.sandbox))
    if samples and not marks:
        again = f"`dlm eval report {run.folder}` grades them"
        raise InvalidRequest("run", f"the answers of {path.parent} have no valid verdict: {again}")
    verdicts = {key: found.right for key, found in marks.items()}
    return Answers(verdicts, {(s.item, s.index): s.text for s in samples})


def comparison_table(found: Sequence[Beside]) -> str:
    """A Markdown table: accuracies, the paired difference in points, who alone is right."""
    head = ["task", "n", "first", "second", "difference", "only first", "only second", "p"]
    head += ["same text"]
    lines = [table_line(head), table_line(["---"] * len(head))]
    for row in found:
        pair, (low, high) = row.paired, row.paired.interval
        whole = row.asked == (row.n, row.n)
        lines.append(
            table_line(
                [
                    row.task,
                    str(row.n) if whole else f"{row.n} of {row.asked[0]} and {row.asked[1]}",
                    f"{100 * row.accuracy[0]:.1f}%",
                    f"{100 * row.accuracy[1]:.1f}%",
                    f"{100 * pair.difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})",
                    str(pair.lost),
                    str(pair.gained),
                    f"{row.p:.2g}",
                    f"{100 * row.same:.0f}%",
                ]
            )
        )
    return "\n".join(lines) + "\n"
