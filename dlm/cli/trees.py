"""Saved searches: read from a file, shown in the terminal or as a picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from math import inf, isfinite, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import dlm
from dlm.cli.files import read_text
from dlm.cli.screen import counted
from dlm.errors import InvalidRequest, shortened

if TYPE_CHECKING:
    from dlm.search.saved import SavedSearch

LONGEST: Final = 60
"""Characters of an answer beside its node."""
HEAD: Final = "  node  forwards from→to, ↺ positions opened again  score  answer (* the best)"
"""The columns of a tree as text."""
REMASK: Final = "remask"
"""The beginning of the verb that opens positions of a node again."""


class Line(NamedTuple):
    """A node as a line of a picture, from its making to its last forward.

    node: the node
    depth: nodes above it
    lane: its place from top to bottom, below its parent and the children before it
    start, end: forwards of its row
    remasked: forwards of its row when positions were opened again
    """

    node: dlm.TreeNode
    depth: int
    lane: int
    start: int
    end: int
    remasked: tuple[int, ...]


def lines_of(nodes: Sequence[dlm.TreeNode]) -> list[Line]:
    """The lines of all nodes, from top to bottom."""
    children: dict[int | None, list[dlm.TreeNode]] = {}
    for node in nodes:
        children.setdefault(node.parent, []).append(node)
    found: list[Line] = []
    stack = [(node, 0) for node in reversed(children.get(None, []))]
    while stack:
        node, depth = stack.pop()
        forwards = [nfe for _, nfe in node.work] or [0]
        remasked = tuple(nfe for verb, nfe in node.work if verb.startswith(REMASK))
        found.append(Line(node, depth, len(found), forwards[0], max(forwards), remasked))
        stack += [(child, depth + 1) for child in reversed(children.get(node.number, []))]
    return found


def read_tree(path: Path) -> SavedSearch | None:
    """The search that a file holds; None for a file of something else.

    Raises `InvalidRequest` for a search that cannot be read.
    """
    from dlm.search.saved import SavedSearch

    try:
        record = json.loads(read_text("trace", path))
    except (ValueError, RecursionError):
        return None  # a trace has several lines
    if not isinstance(record, dict) or record.get("type") != "search":
        return None
    try:
        return SavedSearch.from_json(record)
    except ValueError as error:
        raise InvalidRequest("trace", f"{path}: {error}") from error


def summary(found: SavedSearch) -> str:
    """One line about a search: what was asked for, score, costs, reason."""
    costs = found.costs
    judged = f" judged by {found.verifier}" if found.verifier else ""
    parts = [
        f"{found.search or 'a search'}{judged} on {found.model or 'a model'}",
        f"score {spelled(found.score)}",
        forwards(costs),
        counted(len(found.candidates), "answer"),
        f"{costs.seconds:.2f} s",
        found.reason,
        *(["with an oracle"] if found.oracle else []),
    ]
    return " · ".join(parts)


def forwards(costs: dlm.SearchCosts) -> str:
    """The forwards of a search in words: of rows, those that several rows shared, of verifiers."""
    told = counted(costs.row_forwards, "forward")
    if costs.shared_forwards:
        told += f" (and {costs.shared_forwards} shared with another row)"
    return told + (f" and {costs.verifier_nfe:.4g} of the verifier" if costs.verifier_nfe else "")


def spelled(score: float) -> str:
    """A score as text; a dash where there is none."""
    return "-" if isnan(score) else "failed" if score == -inf else f"{score:.4g}"


def one_line(text: str, most: int = LONGEST) -> str:
    """A text on one line, its middle left out where it is long."""
    return shortened(text.replace("\n", "⏎"), most)


def question(found: SavedSearch, most: int = 100) -> str:
    """The prompt on one line; empty where the file has none."""
    prompt = found.request.prompt
    return f"prompt: {one_line(prompt, most)}" if prompt else ""


def settings(found: SavedSearch) -> str:
    """The options, the budget and the target of a search on one line; empty without any."""
    request = found.request
    told = [f"{name}={value}" for name, value in request.options.items()]
    told += [f"budget {name}={value:g}" for name, value in request.budget.items()]
    told += [] if request.target is None else [f"target {request.target:g}"]
    return ", ".join(told)


def text_tree(found: SavedSearch) -> Iterator[str]:
    """A summary, the prompt, the names of the columns, and the nodes as lines of text, children
    indented.
    """
    yield summary(found)
    if asked := question(found):
        yield asked
    yield HEAD
    for line in lines_of(found.nodes):
        node = line.node
        mark = "*" if node.number == found.best else " "
        span = f"{line.start}→{line.end}" + "".join(f" ↺{nfe}" for nfe in line.remasked)
        indent = "  " * line.depth
        yield f"{mark} {indent}{node.number}  {span}  {spelled(node.score)}  {one_line(node.text)}"


def print_tree(found: SavedSearch) -> None:
    """Print the nodes in what stdout can show."""
    coding = sys.stdout.encoding or "utf-8"
    for line in text_tree(found):
        print(line.encode(coding, errors="replace").decode(coding))
    sys.stdout.flush()


def scale(scores: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest finite score, apart from each other."""
    finite = [score for score in scores if isfinite(score)] or [0.0]
    low, high = min(finite), max(finite)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def write_picture(found: SavedSearch, path: Path) -> None:
    """The tree over forwards and the curve of the best score as a picture.

    Needs `matplotlib`, which the `evals` extra brings.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    height = min(16.0, 3.6 + 0.2 * len(found.nodes))
    figure = Figure(figsize=(10, height), layout="constrained")
    tree, curve = figure.subplots(2, 1, height_ratios=[max(1.0, height - 3), 2])
    norm = Normalize(*scale([node.score for node in found.nodes]))
    figure.colorbar(ScalarMappable(norm, "viridis"), ax=tree, label="score")
    for line in lines_of(found.nodes):
        score = line.node.score
        paint = colormaps["viridis"](norm(score)) if isfinite(score) else "0.7"
        _draw_line(tree, line, paint, best=line.node.number == found.best)
    _draw_parents(tree, lines_of(found.nodes))
    tree.invert_yaxis()
    tree.set_xlim(0, 1.3 * max([line.end for line in lines_of(found.nodes)], default=1))
    tree.set_xlabel("forwards of the row (x: positions opened again; bold: the answer)")
    tree.set_yticks([])
    title = "\n".join(filter(None, (question(found), summary(found))))
    tree.set_title(title, fontsize=8, parse_math=False)
    points = [point for point in found.curve if isfinite(point.score)]
    ends = [point.nfe for point in points] + [found.costs.nfe] * bool(points)
    scores = [point.score for point in points]
    curve.step(ends, scores + scores[-1:], where="post")
    curve.plot(ends[:-1], scores, "o", color="C0", clip_on=False)
    curve.set_xlim(0, max(found.costs.nfe, 1))
    curve.set_xlabel("forwards of the search")
    curve.set_ylabel("best score")
    figure.savefig(path, dpi=120)


def _draw_line(panel: Any, line: Line, colour: Any, *, best: bool) -> None:
    """A node: its forwards, the places where it was opened again, its text."""
    panel.plot([line.start, line.end], [line.lane] * 2, color=colour, linewidth=2)
    panel.plot(line.remasked, [line.lane] * len(line.remasked), "x", color="black", markersize=4)
    shown = f" {one_line(line.node.text, 40)}"
    weight = "bold" if best else "normal"
    panel.text(line.end, line.lane, shown, fontsize=6, va="center", weight=weight, parse_math=False)


def _draw_parents(panel: Any, lines: Sequence[Line]) -> None:
    """A thin line from each node up to the one that it was forked from."""
    lanes = {line.node.number: line.lane for line in lines}
    for line in lines:
        if line.node.parent is not None:
            ends = [lanes[line.node.parent], line.lane]
            panel.plot([line.start] * 2, ends, color="0.6", linewidth=0.8, zorder=0)
