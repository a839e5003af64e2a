"""The tables of `docs/search.md` that are made of the committed results."""

import json
import re
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "evals" / "results"
TASKS = ("countdown", "sudoku", "code", "math")


def read(kind):
    """Task -> its rows of a kind of file, for the tasks that have one."""
    files = {task: RESULTS / f"search-{task}" / f"{kind}.json" for task in TASKS}
    found = {task: json.loads(path.read_text()) for task, path in files.items() if path.is_file()}
    return {task: data["figures"] for task, data in found.items()}


def reached(row):
    """The forwards at which a method is as accurate as best-of-16, with their shares."""
    (match, _), (fixed, _), (stopping, _) = row["match"], row["of_fixed"], row["of_stopping"]
    final = f"{100 * row['final'][0]:.1f} %"
    if match is None:
        return f"never; {final}"
    return f"**{match:.1f}** ({fixed:.2f}, {stopping:.2f}); {final}"


def curves_rows():
    """Header and rows of the forwards that methods need, a column for each set of problems."""
    figures = [row for rows in read("results").values() for row in rows]
    titles = list(dict.fromkeys(row["task"] for row in figures))
    methods = list(dict.fromkeys(row["method"] for row in figures))
    cells = {(row["method"], row["task"]): reached(row) for row in figures}
    names = [f"`{name}`" if " " not in name else name for name in methods]
    rows = [[cells.get((method, title), "") for title in titles] for method in methods]
    return ["method", *titles], [[name, *own] for name, own in zip(names, rows, strict=True)]


def verifiers_rows():
    """Header and rows of how often the best-scored of 16 answers is right."""
    figures = read("verifiers")
    found = {(row["verifier"], task): row for task in figures for row in figures[task][task]}
    names = list(dict.fromkeys(name for name, _ in found))
    rows = []
    for name in names:
        own = [found.get((name, task)) for task in figures]
        shown = [f"{100 * row['right'][0]:.1f}" if row else "" for row in own]
        plain = re.fullmatch(r"random|oracle", name)
        rows.append([name if plain else f"`{name}`", *shown])
    return ["verifier", *figures], rows
