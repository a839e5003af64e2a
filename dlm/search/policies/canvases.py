"""Canvases of nodes as starts of new rows, which may follow other rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dlm.config.spec_strings import parse_part
from dlm.core import Kind
from dlm.errors import InvalidRequest
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


def check_rules(param: str, rules: Sequence[str]) -> None:
    """Raise `InvalidRequest` for a value of `unmask` that is none, and where there are none.

    An empty one stands for the rule of the request; a path to a class is left to the engine.
    """
    if not rules:
        raise InvalidRequest(param, "must have a value of `unmask`, got none")
    for rule in rules:
        if rule and ":" not in rule.partition("(")[0]:
            try:
                parse_part("unmask", rule, trusted=False)
            except InvalidRequest as error:
                raise InvalidRequest(param, f"must be values of `unmask`: {error}") from None


def by_rule(rule: str) -> dict[str, str]:
    """The options of a row that follows a rule; none for an empty one."""
    return {"unmask": rule} if rule else {}
