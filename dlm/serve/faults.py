"""Faults of a body, as pydantic finds them, in words that follow the field's name."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from dlm.errors import shortened, shown

MOST_TOLD: Final = 3
"""Faults of a body that one message lists."""
RULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "string_unicode": "must be Unicode text",
        "string_type": "must be a string",
        "list_type": "must be a list",
        "dict_type": "must be an object",
        "model_attributes_type": "must be an object",
        "model_type": "must be an object",
        "too_short": "must have at least {min_length} items",
        "too_long": "must have at most {max_length} items",
        "string_too_long": "must have at most {max_length} characters",
    }
)
"""Rules that a value breaks, by pydantic's name of the fault."""
NAMES: Final[Mapping[type, str]] = MappingProxyType({list: "a list", dict: "an object"})
"""Kinds of JSON values."""
_UNION: Final = re.compile(
    r"^(function-|constrained-|nullable|lax-|json-|list\[|dict\[|str$|int$|float$|bool$)"
)


def told_faults(faults: Sequence[Mapping[str, Any]]) -> tuple[str, str | None]:
    """The message for faults that pydantic found, the first ones, each with its field; and the
    first field.
    """
    rules: dict[str, list[str]] = {}
    given: dict[str, str] = {}
    for fault in _fitting(faults):
        where = _field(fault["loc"])
        rules.setdefault(where, []).append(_rule(fault))
        given.setdefault(where, _given(fault))
    lines = [
        (f"`{where}` " if where else "the body ") + " or ".join(dict.fromkeys(own)) + given[where]
        for where, own in rules.items()
    ]
    more = f" (and {len(lines) - MOST_TOLD} more)" if len(lines) > MOST_TOLD else ""
    param = next(iter(rules)) or None
    return "; ".join(lines[:MOST_TOLD]) + more, param


def _fitting(faults: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The faults without those of the forms of a field that the value was not meant for.

    Where a field may have several forms, pydantic tells what each of them lacks. The form that was
    meant is the one that the value follows furthest.
    """
    kept = list(faults)
    for depth in range(max((len(fault["loc"]) for fault in kept), default=0)):
        forms: dict[tuple[Any, ...], dict[str, list[Mapping[str, Any]]]] = {}
        for fault in kept:
            places = fault["loc"]
            if len(places) > depth and _UNION.match(str(places[depth])):
                own = forms.setdefault(places[:depth], {})
                own.setdefault(places[depth], []).append(fault)
        for own in forms.values():
            reached = {form: _reached(told, depth + 1) for form, told in own.items()}
            wrong = [form for form in own if reached[form] < max(reached.values())]
            gone = {id(fault) for form in wrong for fault in own[form]}
            kept = [fault for fault in kept if id(fault) not in gone]
    return kept


def _reached(faults: Sequence[Mapping[str, Any]], depth: int) -> tuple[float, ...]:
    """The place of the first value of another type, from `depth` on; infinity if all types fit."""
    places = [
        tuple(float(place) for place in fault["loc"][depth:] if isinstance(place, int))
        for fault in faults
        if fault["type"] == "missing" or fault["type"].endswith("_type")
    ]
    return min(places, default=(math.inf,))


def _field(places: Sequence[Any]) -> str:
    """The field of a fault, as `messages[0].content`."""
    where = ""
    for place in places:
        if isinstance(place, int):
            where += f"[{place}]"
        elif place not in ("body", "query", "path") and not _UNION.match(place):
            where += f".{place}" if where else place
    return shortened(where, 80)


def _rule(fault: Mapping[str, Any]) -> str:
    """The rule that a value breaks, in words that follow the field's name."""
    if fault["type"] == "missing":
        return "is required"
    if fault["type"] in RULES:
        rule = RULES[fault["type"]].format_map(fault.get("ctx", {}))
        return rule.replace(" 1 items", " 1 item")
    words = str(fault["msg"]).removeprefix("Value error, ")
    for theirs in ("Input should be ", "Input should ", "Extra inputs are "):
        if words.startswith(theirs):
            ours = {"Input should be ": "must be ", "Input should ": "must "}
            return ours.get(theirs, "is ") + words.removeprefix(theirs)
    return words[:1].lower() + words[1:]


def _given(fault: Mapping[str, Any]) -> str:
    """The value at fault, shortened: its kind where it is a list or an object."""
    if fault["type"] == "missing":
        return ""
    if fault["type"] in ("too_short", "too_long"):
        return f", got {fault['ctx']['actual_length'] or 'none'}"
    value = fault.get("input")
    plain = isinstance(value, str | int | float | bool | None)
    if isinstance(value, bool | None):
        return f", got {json.dumps(value)}"
    return f", got {shown(value)}" if plain else f", got {NAMES.get(type(value), 'another value')}"
