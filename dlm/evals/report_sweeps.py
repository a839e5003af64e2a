"""The table of a run's sweeps."""

from __future__ import annotations

from collections.abc import Sequence

from dlm.evals.sweeps import FEWEST, LOSS, AtCost, SweepFigures

COLUMNS = ("sweep", "AUP", "as good, fastest", "TPF", "at equal NFE to the first sweep")


def sweep_lines(sweeps: Sequence[SweepFigures]) -> list[str]:
    """A Markdown table with a row for each sweep of a task; nothing without sweeps."""
    if not sweeps:
        return []
    rows = [table_line(_cells(sweep)) for sweep in sweeps]
    shared = sorted({sweep.n for sweep in sweeps})
    note = (
        f"As good: the paired 95% bound to the baseline is above {100 * LOSS:.0f} points, each "
        f"setting by itself; fewer than {FEWEST} items cannot show it, even if all agree. AUP and "
        f"figures at equal NFE are over the items that all settings have (n = "
        f"{', '.join(map(str, shared))}), with 95% bounds. AUP leaves out settings more than 5 "
        "points below the least parallel one of their sweep; their number is in brackets."
    )
    return ["", table_line(COLUMNS), table_line(["---"] * len(COLUMNS)), *rows, "", note]


def _cells(sweep: SweepFigures) -> list[str]:
    dropped = f" ({sweep.dropped})" if sweep.dropped else ""
    fastest, (low, high) = sweep.fastest, sweep.interval
    none = "-" if sweep.n >= FEWEST else "too few items"
    return [
        sweep.sweep,
        f"{sweep.aup:.0f}{dropped} ({low:.0f} to {high:.0f})",
        none if fastest is None else f"{fastest.setting}: {100 * fastest.accuracy:.1f}%",
        "-" if fastest is None else f"{fastest.tpf:.2f}",
        "; ".join(map(_gain, sweep.against)) or "-",
    ]


def _gain(at: AtCost) -> str:
    low, high = (100 * bound for bound in at.interval)
    return f"{at.nfe:.1f}: {100 * at.difference:+.1f} ({low:+.1f} to {high:+.1f})"


def table_line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    shown = (" ".join(cell.replace("|", "/").split()) for cell in cells)
    return f"| {' | '.join(shown)} |"
