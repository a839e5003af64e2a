"""The plots of a run: accuracy over forwards, or along sweeps over tokens per forward."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dlm.evals.results import Results

MARKERS: Final = "os^vD<>Phx*d"
ACROSS: Final = 8
"""Panels beside each other."""


def plot(runs: Sequence[Results], path: Path) -> None:
    """One panel a task, to a PNG file. Needs `matplotlib`."""
    from matplotlib.figure import Figure

    tasks = [(run, task) for run in runs for task in dict.fromkeys(f.task for f in run.figures)]
    across = max(1, min(ACROSS, len(tasks)))
    down = max(1, -(-len(tasks) // across))
    figure = Figure(figsize=(4.6 * across, 4.2 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).flatten()
    for panel, (run, task) in zip(panels, tasks, strict=False):
        draw = _draw_sweeps if run.sweeps else _draw_settings
        draw(run, task, panel)
        panel.set_title(task)
        panel.grid(alpha=0.3)
    for panel in panels[len(tasks) :]:
        panel.set_axis_off()
    for panel in panels[::across]:
        panel.set_ylabel("right, %")
    known: dict[str, Any] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        known |= dict(zip(labels, handles, strict=True))
    figure.legend(
        list(known.values()), list(known), fontsize="x-small", loc="outside lower center", ncols=5
    )
    figure.savefig(path, dpi=110)


def _draw_settings(results: Results, task: str, panel: Any) -> None:
    """Every setting by itself, with its 95% interval."""
    rows = [row for row in results.figures if row.task == task and row.n]
    for row in rows:
        low, high = row.interval
        bars = [[max(0.0, 100 * (row.accuracy - low))], [max(0.0, 100 * (high - row.accuracy))]]
        at, label = ([row.nfe], [100 * row.accuracy]), _plain(row.setting)
        panel.errorbar(*at, yerr=bars, fmt="o", capsize=3, label=label)
    panel.set_xlabel("forwards an answer (NFE)")
    spent = [row.nfe for row in rows if row.nfe > 0]
    if spent and max(spent) > 3 * min(spent):
        panel.set_xscale("log")


def _draw_sweeps(results: Results, task: str, panel: Any) -> None:
    """A line for each sweep, and the baseline's accuracy across."""
    from matplotlib import colormaps

    told = results.header["settings"]
    rows = {row.setting: row for row in results.figures if row.task == task and row.n}
    sweep_of = {name: told[name].get("sweep", "") for name in rows}
    sweeps = list(dict.fromkeys(filter(None, sweep_of.values())))
    if results.baseline in rows:
        panel.axhline(100 * rows[results.baseline].accuracy, color="black", ls="--", lw=0.8)
    colours = map(colormaps["tab20"], cycle(range(20)))
    for sweep, colour, marker in zip(sweeps, colours, cycle(MARKERS), strict=False):
        points = sorted(
            (row.tpf, 100 * row.accuracy) for name, row in rows.items() if sweep_of[name] == sweep
        )
        look = {"color": colour, "marker": marker, "ms": 4, "lw": 1.2}
        panel.plot(*zip(*points, strict=True), **look, label=_plain(sweep))
    panel.set_xlabel("tokens per forward (TPF)")


def _plain(name: str) -> str:
    """A name as a label, in which `$` begins no formula; one that begins with `_` is shown too."""
    return " " * name.startswith("_") + name.replace("$", r"\$")
