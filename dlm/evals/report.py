"""A run for its readers: `results.json`, a table in Markdown, and a plot."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dlm
from dlm.evals.bands import missed, read_figures
from dlm.evals.pictures import plot
from dlm.evals.report_sweeps import sweep_lines, table_line
from dlm.evals.results import Results
from dlm.evals.statistics import Interval
from dlm.evals.summary import Comparison, Figures

COLUMNS = (
    "setting",
    "right",
    "95 %",
    "to baseline",
    "p",
    "same text",
    "NFE",
    "TPF",
    "positions",
)
SPEEDS = ("tokens/s", "p50 s", "p95 s")
"""Of single requests, so only where they ran one at a time."""


def write_report(results: Results, folder: Path) -> None:
    """Write `results.json`, `table.md` and `plot.png` into `folder`."""
    text = json.dumps(as_data(results), indent=1, allow_nan=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    (folder / "table.md").write_text(table(results), encoding="utf-8")
    plot([results], folder / "plot.png")


def write_page(runs: Sequence[Results], folder: Path, lost: Sequence[str] = ()) -> Path:
    """All runs on one page, `report.md`, with one picture of all, `report.png`.

    `lost`: why other runs of the folder are not there.
    """
    lines = ["# Runs", "", "![accuracy over forwards](report.png)", ""]
    lines += [line for reason in lost for line in (f"LEFT OUT: {reason}", "")]
    for results in runs:
        header = results.header
        model, machine = header["model"], header["machine"]
        lines += [
            f"## {model.get('name')}: {', '.join(header['items'])}",
            "",
            f"{_origin(model, machine)}; dlm {header.get('dlm')} ({header.get('commit')}), torch "
            f"{header.get('packages', {}).get('torch')}; {header.get('started')}"
            f"{_sessions(header)}.",
            "",
            table(results),
        ]
    page = folder / "report.md"
    page.write_text("\n".join(lines), encoding="utf-8")
    plot(runs, folder / "report.png")
    return page


def _origin(model: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    """Describe the model and the machine that answered."""
    if "endpoint" in model:
        return f"served by {model['endpoint']}"
    where = machine.get("accelerator") or machine.get("system")
    kind = str(model.get("dtype")).removeprefix("torch.")
    return f"{model.get('parameters') or 0:,} parameters, {kind} on {where}"


def _sessions(header: Mapping[str, Any]) -> str:
    """Report the number of sessions of a resumed run; empty for one session."""
    count = len(header.get("sessions", ()))
    return f", drawn in {count} sessions" if count > 1 else ""


def as_data(results: Results) -> dict[str, Any]:
    """Plain data for JSON; unknown values are null."""
    data: dict[str, Any] = _known(
        {
            "header": dict(results.header),
            "baseline": results.baseline,
            "figures": [asdict(figures) for figures in results.figures],
            "comparisons": [asdict(comparison) for comparison in results.comparisons],
            "sweeps": [asdict(sweep) for sweep in results.sweeps],
        }
    )
    return data


def _known(value: Any) -> Any:
    """The same data with None for NaN."""
    if isinstance(value, dict):
        return {key: _known(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_known(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def table(results: Results) -> str:
    """A Markdown table for each task: settings as rows, the baseline marked by a dash."""
    tasks = dict.fromkeys(figures.task for figures in results.figures)
    return "\n".join(_task_table(results, task) for task in tasks)


def _task_table(results: Results, task: str) -> str:
    rows = [figures for figures in results.figures if figures.task == task]
    found = {c.setting: c for c in results.comparisons if c.task == task}
    drawn = max(row.samples for row in rows)
    counts = ", ".join(map(str, sorted({row.n for row in rows})))
    title = f"### {task} (n = {counts}{f', {drawn} samples each' if drawn > 1 else ''})"
    rungs, alone = _rung_names(rows), timed_alone(results.header)
    best = [f"pass@{drawn}"] if drawn > 1 else []
    scores = list(dict.fromkeys(name for row in rows for name in row.scores))
    columns = [*COLUMNS, *(SPEEDS if alone else ()), *best, *scores, *rungs]
    protocol = _protocol_lines(results)
    lines = [title, "", *protocol, table_line(columns), table_line(["---"] * len(columns))]
    for row in rows:
        cells = _cells(row, found.get(row.setting)) + (_speeds(row) if alone else [])
        if drawn > 1:
            cells.append(_bounded(row.pass_at_k, row.pass_interval))
        cells += [_bounded(row.scores.get(n), row.score_intervals.get(n)) for n in scores]
        lines.append(table_line([*cells, *(_share(row, rung) for rung in rungs)]))
    sweeps = [sweep for sweep in results.sweeps if sweep.task == task]
    notes = [*_unanswered(rows), *_partial(rows, found), *_warnings(results, task)]
    return "\n".join([*lines, *_legend(results), *notes, *sweep_lines(sweeps), ""])


def timed_alone(header: Mapping[str, Any]) -> bool:
    """True if the seconds are of single requests, all of them on the same machine."""
    machines = [session.get("machine", {}) for session in header.get("sessions", ())]
    same = [{k: v for k, v in machine.items() if k != "load"} for machine in machines]
    return header["rows"] == 1 and all(machine == same[0] for machine in same)


def _rung_names(rows: Sequence[Figures]) -> list[str]:
    """The steps of a task's ladder, when there is more than one."""
    rungs = sorted({rung for row in rows for rung in row.rungs})
    return rungs if len(rungs) > 1 else []


def _share(row: Figures, rung: str) -> str:
    """The accuracy of a setting on a rung, in percent."""
    right, n = row.rungs.get(rung, (0.0, 0))
    return _bounded(right / n if n else None, row.rung_intervals.get(rung))


def _bounded(share: float | None, interval: Interval | None) -> str:
    """A share with its interval, in percent."""
    if share is None or interval is None or math.isnan(share):
        return "-"
    return f"{100 * share:.1f}% ({100 * interval.low:.0f}-{100 * interval.high:.0f})"


def _legend(results: Results) -> list[str]:
    """Explain the intervals and p-values of the figures."""
    drawn = max(row.samples for row in results.figures)
    tests = sum(c.paired.n > 0 for c in results.comparisons)
    how = "Wilson's and Tango's, p McNemar's exact test"
    if drawn > 1:
        how = "of the items' shares (bootstrap over items), p of turned signs"
    family = f", adjusted by Holm over the {tests} comparisons of this run" if tests > 1 else ""
    line = f"Intervals are 95%: {how}{family}. NFE, TPF, positions and times are what these answers"
    return ["", f"{line} took, without intervals."]


def _protocol_lines(results: Results) -> list[str]:
    """By which protocol a benchmark was asked and judged."""
    protocol, unsent = results.header.get("protocol"), results.header.get("unsent")
    served = (
        [f"The server decodes as it is set up; not told: {', '.join(unsent)}."] if unsent else []
    )
    if protocol is None:
        return [*served, ""] if served else []
    note = f" ({protocol['note']})" if protocol.get("note") else ""
    judged = f"judged by {protocol.get('grader')}"
    judged += f" under {protocol['sandbox']}" if protocol.get("sandbox") else ""
    source = f"Protocol {protocol.get('name')}: {protocol.get('source')}{note}; {judged}."
    return [source, *served, ""]


def _unanswered(rows: Sequence[Figures]) -> list[str]:
    """Answers that count as wrong because they are none, and those that could not be judged."""
    notes = [f"{row.setting}: {row.refused} did not fit the model" for row in rows if row.refused]
    open_ = ((row.setting, row.masked_left - row.refused) for row in rows)
    notes += [f"{name}: {count} have positions never filled" for name, count in open_ if count]
    wrong = ["", f"Wrong for lack of an answer: {'; '.join(notes)}."] if notes else []
    lost = [f"{row.setting}: {row.unjudged}" for row in rows if row.unjudged]
    return [*wrong, "", f"NOT JUDGED, and in no figure: {'; '.join(lost)}."] if lost else wrong


def _partial(rows: Sequence[Figures], found: Mapping[str, Comparison]) -> list[str]:
    """Warn of figures from fewer items or independent samples than the run asks for."""
    missing = [f"{row.setting}: {row.missing}" for row in rows if row.missing]
    lines = ["", f"UNFINISHED, answers still to draw: {'; '.join(missing)}."] if missing else []
    fewer = [
        f"{row.setting}: {found[row.setting].paired.n}"
        for row in rows
        if row.setting in found and found[row.setting].paired.n < max(r.n for r in rows)
    ]
    if fewer:
        lines += ["", f"To the baseline over the items that both have: {'; '.join(fewer)}."]
    alike = [row.setting for row in rows if row.alike]
    if alike:
        same = "all samples of each item are the same text, so they say no more than one"
        lines += ["", f"{', '.join(alike)}: {same}."]
    return lines


def _warnings(results: Results, task: str) -> list[str]:
    """Warn of the expected bands that a bundled model misses."""
    name = results.header["model"].get("name")
    served = "protocol" in results.header or "endpoint" in results.header["model"]
    bundled = name in dlm.bundled_names() and not served
    figures = read_figures(dlm.inspect(name).folder) if bundled else None
    notes = [] if figures is None else missed(figures, task)
    return ["", f"Outside its band: {'; '.join(notes)}."] if notes else []


def _cells(row: Figures, comparison: Comparison | None) -> list[str]:
    """One row of a table; accuracies in percent, differences in points."""
    low, high = row.interval
    against = ["-", "-", "-"]
    if comparison is not None and comparison.paired.n:
        found = comparison.paired
        bounds = f"{100 * found.interval.low:+.1f} to {100 * found.interval.high:+.1f}"
        change = f"{100 * found.difference:+.1f} ({bounds})"
        against = [change, f"{comparison.p:.2g}", f"{100 * comparison.same:.0f}%"]
    judged = [f"{100 * row.accuracy:.1f}%", f"{100 * low:.1f}-{100 * high:.1f}"]
    cost = [f"{row.nfe:.1f}", f"{row.tpf:.2f}", f"{row.token_forwards:.0f}"]
    return [
        row.setting,
        *(judged if row.n else ["-", "-"]),
        *against,
        *(["-", "-", "-"] if math.isnan(row.tpf) else cost),
    ]


def _speeds(row: Figures) -> list[str]:
    """Tokens a second, and the seconds of a request."""
    if math.isnan(row.p50):
        return ["-", "-", "-"]
    return [f"{row.tokens_per_second:.0f}", f"{row.p50:.3f}", f"{row.p95:.3f}"]
