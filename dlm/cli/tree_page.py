"""One HTML file, without a script, that shows a saved search: its tree, curve and answers."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dlm.cli.trees import (
    Line,
    lines_of,
    one_line,
    print_tree,
    scale,
    settings,
    spelled,
    summary,
    write_picture,
)
from dlm.errors import InvalidRequest

if TYPE_CHECKING:
    from dlm.search.saved import SavedSearch

WIDTH: Final = 900
LANE: Final = 18
MARGIN: Final = 12
TALL: Final = 160
"""Pixels: width of the pictures, height of a node, space around, height of the curve."""
AXIS: Final = 16
"""Pixels below a picture for the numbers of its forwards."""
LABEL: Final = 260
"""Pixels on the right of the tree for the answers."""
RAMP: Final = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
"""Colours from the lowest score to the highest (viridis)."""
NO_SCORE: Final = "#999"
STYLE: Final = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 940px; padding: 0 1rem;
  color: #222; background: #fff; }
h1 { font-size: 1.2rem; } h2 { font-size: 1rem; margin-top: 2rem; }
.wide { overflow-x: auto; } svg { width: 100%; min-width: 640px; height: auto; }
svg text { font: 11px ui-monospace, monospace; fill: #222; }
.join { stroke: #bbb; fill: none; } .curve { stroke: #3b528b; stroke-width: 2; fill: none; }
.axis { stroke: #888; } .point { fill: #3b528b; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; vertical-align: top;
  padding: .25rem .6rem; border-bottom: 1px solid #ddd; }
td:nth-child(5) { white-space: pre-wrap; min-width: 8em; font-family: ui-monospace, monospace; }
td:nth-child(6) { min-width: 12em; }
.note { color: #666; font-size: .9em; }
.best { font-weight: 600; background: #eef7ee; }
pre { white-space: pre-wrap; background: #f5f5f5; padding: .8rem; }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #161616; } svg text { fill: #ddd; } pre { background: #222; }
  td, th { border-color: #333; } .best { background: #1f3322; } .join { stroke: #555; }
  .curve { stroke: #7fa8e0; } .point { fill: #7fa8e0; } .note { color: #aaa; }
}
"""


ROWS: Final = """<p class=note>A line is a row, from its first forward to its last, below the row
that it was forked from. The colour is the score of its answer, from dark (the lowest) to yellow
(the highest), grey without one; the thick line is the answer of the search. At an x, positions were
opened again. All that was done on a row appears where the pointer rests on it.</p>"""
ANSWERS: Final = """<p class=note>In the order in which they were judged. Forwards: of the whole
search, up to then.</p>"""


def write_tree_page(found: SavedSearch, path: Path) -> None:
    """Write the page; every text in it is escaped."""
    title = escape(summary(found))
    parts = [
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>{title}</title><style>{STYLE}</style></head><body>",
        f"<h1>{title}</h1>",
        *_asked(found),
        f"<h2>Answer</h2><pre>{escape(found.text)}</pre>",
        "<h2>Rows, by their forwards</h2>",
        ROWS,
        *_tree(found),
        "<h2>Best score, by the forwards of the search</h2>",
        *_curve(found),
        "<h2>Answers</h2>",
        ANSWERS,
        *_table(found),
        "</body></html>\n",
    ]
    path.write_text("\n".join(parts), encoding="utf-8")


def show_tree(found: SavedSearch, row: int, html: Path | None, png: Path | None) -> None:
    """Show a saved search as `dlm trace` is asked to. Raises `InvalidRequest` for a row of it."""
    if row:
        raise InvalidRequest("row", "is of traces: all rows of a search are shown")
    if html is not None:
        write_tree_page(found, html)
    if png is not None:
        write_picture(found, png)
    if html is None and png is None:
        print_tree(found)


def colour(score: float, low: float, high: float) -> str:
    """The colour of a score between the lowest and the highest."""
    if not isfinite(score):
        return NO_SCORE
    place = (score - low) / (high - low) * (len(RAMP) - 1)
    at = min(int(place), len(RAMP) - 2)
    pairs = zip(RAMP[at], RAMP[at + 1], strict=True)
    mixed = [round(a + (b - a) * (place - at)) for a, b in pairs]
    return f"rgb({mixed[0]},{mixed[1]},{mixed[2]})"


def _asked(found: SavedSearch) -> Iterator[str]:
    """The prompt and the settings, as far as the file has them."""
    request = found.request
    for name, text in (("System message", request.system), ("Prompt", request.prompt)):
        if text:
            yield f"<h2>{name}</h2><pre>{escape(text)}</pre>"
    if told := settings(found):
        yield f"<p class=note>{escape(told)}</p>"


def _tree(found: SavedSearch) -> Iterator[str]:
    """The nodes as lines, each from its making to its last forward."""
    lines = lines_of(found.nodes)
    longest = max((line.end for line in lines), default=1) or 1
    low, high = scale([node.score for node in found.nodes])
    step = (WIDTH - LABEL - 2 * MARGIN) / longest
    lanes = {line.node.number: line.lane for line in lines}

    def y(lane: int) -> float:
        return MARGIN + LANE * (lane + 0.5)

    tall = 2 * MARGIN + LANE * max(len(lines), 1)
    yield _svg(tall + AXIS)
    yield from _axis(tall, MARGIN + longest * step, longest)
    for line in lines:
        start, end, at = MARGIN + line.start * step, MARGIN + line.end * step, y(line.lane)
        if line.node.parent is not None:
            above = y(lanes[line.node.parent])
            yield f"<path class=join d='M{start:.1f} {above:.1f}V{at:.1f}'/>"
        width = 7 if line.node.number == found.best else 4
        paint = colour(line.node.score, low, high)
        yield f"<g><title>{escape(_told(line))}</title>"
        yield (
            f"<path d='M{start:.1f} {at:.1f}H{max(end, start + 2):.1f}' "
            f"stroke='{paint}' stroke-width={width} />"
        )
        for nfe in line.remasked:
            yield f"<text x={MARGIN + nfe * step - 4:.1f} y={at + 4:.1f}>x</text>"
        yield f"<text x={end + 6:.1f} y={at + 4:.1f}>{escape(one_line(line.node.text, 36))}</text>"
        yield "</g>"
    yield "</svg></div>"


def _told(line: Line) -> str:
    """All about a node, shown where the pointer rests."""
    node = line.node
    work = ", ".join(f"{verb} (at {nfe})" for verb, nfe in node.work)
    head = f"node {node.number}, score {spelled(node.score)}, {node.nfe} forwards of its own"
    return f"{head}\n{work}\n{node.text}"


def _curve(found: SavedSearch) -> Iterator[str]:
    """The best score as steps."""
    points = [point for point in found.curve if isfinite(point.score)]
    low, high = scale([point.score for point in points])
    most = max(found.costs.nfe, 1)

    def x(nfe: float) -> float:
        return MARGIN + nfe / most * (WIDTH - 2 * MARGIN)

    def y(score: float) -> float:
        return TALL - MARGIN - (score - low) / (high - low) * (TALL - 4 * MARGIN)

    path = ""
    for point in points:
        path += (
            f"H{x(point.nfe):.1f}V{y(point.score):.1f}"
            if path
            else (f"M{x(point.nfe):.1f} {y(point.score):.1f}")
        )
    yield _svg(TALL + AXIS)
    yield from _axis(TALL - MARGIN / 2, WIDTH - MARGIN, most)
    if path:
        yield f"<path class=curve d='{path}H{x(most):.1f}'/>"
    for point in points:
        told, left = f"{spelled(point.score)} at {point.nfe:.0f}", min(x(point.nfe), WIDTH - 140)
        yield f"<circle class=point cx={x(point.nfe):.1f} cy={y(point.score):.1f} r=3.5 />"
        yield f"<text x={left:.1f} y={y(point.score) - 6:.1f}>{told}</text>"
    yield "</svg></div>"


def _table(found: SavedSearch) -> Iterator[str]:
    """All answers, in the order in which they were judged."""
    yield "<div class=wide><table><tr><th>#<th>node<th>forwards<th>score<th>text<th>feedback</tr>"
    for one in found.candidates:
        mark = " class=best" if one.node == found.best else ""
        cells = (one.number, one.node, f"{one.nfe:.0f}", spelled(one.score), one.text, one.feedback)
        yield f"<tr{mark}>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>"
    yield "</table></div>"


def _axis(y: float, end: float, most: float) -> Iterator[str]:
    """A line below a picture, from no forward to the last one."""
    yield f"<path class=axis d='M{MARGIN} {y}H{end:.1f}'/>"
    yield f"<text x={MARGIN} y={y + AXIS - 3}>0</text>"
    yield f"<text x={end:.1f} y={y + AXIS - 3} text-anchor=end>{most:.0f} forwards</text>"


def _svg(height: float) -> str:
    """The beginning of a picture, which keeps a width that can be read and is scrolled instead."""
    return f"<div class=wide><svg viewBox='0 0 {WIDTH} {height:.0f}' role=img>"
