"""Canvases of nodes as starts of new rows, which may follow other rules."""

from __future__ import annotations

from collections.abc import Mapping

from dlm.core import Kind
from dlm.search.work import END, Point, SearchNode


def canvas_of(node: SearchNode, extra: Mapping[int, int] | None = None) -> list[int | None]:
    """The ids after the prompt of a node, None where it is open, as `Start.canvas` takes them.

    `extra`: ids at open positions of the node, counted as in `SearchNode.open`.
    """
    given = extra or {}
    return [
        token if kind == Kind.COMMITTED else given.get(at)
        for at, (token, kind) in enumerate(zip(node.ids, node.kinds, strict=True))
        if kind != Kind.PROMPT
    ]


def open_share(node: SearchNode, share: float) -> Point:
    """The point at which this share of all positions after the prompt is open.

    A row that starts from a canvas counts its open positions alone.
    """
    whole = sum(kind != Kind.PROMPT for kind in node.kinds)
    return Point(open_ratio=min(share * whole / len(node.open), 1.0)) if share > 0 else END
