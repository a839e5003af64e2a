"""Canvases of nodes as starts of new rows, which may follow other rules."""

from __future__ import annotations

from collections.abc import Mapping

from dlm.core import Kind
from dlm.search.work import SearchNode


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
