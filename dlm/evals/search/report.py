"""The report of a run of searches: `results.json`, tables in Markdown, and plots."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from dlm.evals.pictures import MARKERS
from dlm.evals.report_sweeps import table_line
from dlm.evals.search.curves import Estimate
from dlm.evals.search.figures import BUDGETS, SearchFigures

COLUMNS: Final = (
    "right",
    "NFE",
    "verifier's",
    "verdicts",
    "area",
    "matches best-of-16 at",
    "of fixed",
    "of early stop",
    "gain at equal NFE",
    "gain at its end",
)
NOTE: Final = (
    "kx: share right, in percent, with the forwards of k answers as budget. Right, NFE: of the "
    "whole search; forwards of verifiers are in all NFE, and in a column of their own. Verdicts: "
    "on answers and guesses; they take no forwards where the rules of the task judge. Area: mean "
    "accuracy over log2(NFE). Matches: mean NFE from which on it is as accurate as best-of-16 "
    "without an early stop; as a share of the NFE of that, and of those at which the same with an "
    "early stop is as accurate. Where answers vote, `vote` is taken for best-of-16. Gain: accuracy "
    "less the best one of the baseline with an early stop, at the NFE from which on that has it, "
    "and at all NFE that it takes. In brackets 95% bounds, by the paired bootstrap over items."
)


def write_report(
    header: Mapping[str, Any], figures: Sequence[SearchFigures], seconds: float, folder: Path
) -> str:
    """Write `results.json`, `table.md`, `curves.png` and `oracle.png`; the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = [_line(asdict(row)) for row in figures]
    head = f'{{"header": {_line(dict(header))},\n"cpu_seconds": {seconds},\n"figures": [\n'
    text = head + ",\n".join(shown) + "\n]}\n"
    (folder / "results.json").write_text(text, encoding="utf-8")
    told = tables(figures, seconds)
    (folder / "table.md").write_text(told, encoding="utf-8")
    _plot(figures, "curve", folder / "curves.png")
    _plot(figures, "oracle", folder / "oracle.png")
    return told


def tables(figures: Sequence[SearchFigures], seconds: float) -> str:
    """A Markdown table for each task."""
    lines = []
    for task in dict.fromkeys(row.task for row in figures):
        rows = [row for row in figures if row.task == task]
        title = f"### {task} (n = {rows[0].n}, {rows[0].seeds} seed{'s' * (rows[0].seeds > 1)})"
        worth = [f"{k}x" for k, _ in zip(BUDGETS, rows[0].accuracy, strict=False)]
        columns = ("method", *worth, *COLUMNS)
        lines += [title, "", table_line(columns), table_line(["---"] * len(columns))]
        lines += [table_line(_cells(row)) for row in rows] + [""]
    return "\n".join([*lines, NOTE, "", f"{seconds / 60:.1f} minutes of processor time.", ""])


def _cells(row: SearchFigures) -> list[str]:
    return [
        row.method,
        *(f"{100 * share:.1f}" for share in row.accuracy),
        _told(row.final, 100, "%"),
        f"{row.nfe:.1f}",
        f"{row.verifier_nfe:.1f}",
        f"{row.verdicts:.1f}",
        _told(row.area, 100),
        _told(row.match, 1),
        _told(row.of_fixed, 1, digits=2),
        _told(row.of_stopping, 1, digits=2),
        _told(row.gain, 100, sign="+"),
        _told(row.gain_at_end, 100, sign="+"),
    ]


def _told(estimate: Estimate, scale: float, unit: str = "", sign: str = "", digits: int = 1) -> str:
    """A number with its bounds; `never` for an infinite one."""
    value, (low, high) = estimate
    shown = [
        f"{scale * number:{sign}.{digits}f}" if math.isfinite(number) else "never"
        for number in (value, low, high)
    ]
    return f"{shown[0]}{unit * math.isfinite(value)} ({shown[1]} to {shown[2]})"


def _line(value: dict[str, Any]) -> str:
    """A line of JSON: curves have hundreds of points."""
    return json.dumps(_known(value), allow_nan=False)


def _known(value: Any) -> Any:
    """The same data with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _known(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_known(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plot(figures: Sequence[SearchFigures], kind: str, path: Path) -> None:
    """One panel a task, to a PNG file: a line for each method. `kind`: `curve` or `oracle`."""
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(row.task for row in figures))
    figure = Figure(figsize=(5.2 * len(tasks), 4.6), layout="constrained")
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for panel, task in zip(panels, tasks, strict=True):
        rows = [row for row in figures if row.task == task]
        for row, marker in zip(rows, cycle(MARKERS), strict=False):
            points = getattr(row, kind)
            across, up = [x for x, _ in points], [100 * y for _, y in points]
            look: dict[str, Any] = {"marker": marker, "ms": 4, "lw": 1.2, "markevery": 16}
            panel.plot(across, up, label=row.method, **look)
        panel.set_xscale("log", base=2)
        panel.set_xlabel("forwards a problem (NFE), those of verifiers included")
        panel.set_title(task if kind == "curve" else f"{task}: any answer right")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("right, %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize="x-small", loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=110)
