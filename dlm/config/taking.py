"""One part as a request takes it: parsed, checked against what its kind must have, and bound.

Parts may be anybody's. What they declare is looked at here, once, so that a step can rely on it;
their exceptions are reported as their fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import fields, is_dataclass
from types import MappingProxyType
from typing import Any, Final, get_args

from dlm.config.argument_types import check_arguments
from dlm.config.checks import is_integer
from dlm.config.spec_strings import parse_part
from dlm.core import ModelInfo, ScratchSpec, SharedPrefix, missing_members
from dlm.errors import InvalidRequest, blaming, is_foreign, nearest, rule_error, shown


def bound_part(kind: str, spec: Any, base: Any, info: ModelInfo) -> Any:
    """The part of `kind` that `spec` means, bound to the model; it inherits `base`, or one of them.

    Raises `InvalidRequest` for what is no part of this kind, `RuleError` for a part of somebody
    else's that declares something wrong, and what such a part raises itself.
    """
    part: Any = parse_part(kind, spec)
    _check_kind(kind, part, base)
    own = {f.name: getattr(part, f.name) for f in fields(part) if not f.metadata.get("bound")}
    check_arguments(kind, type(part), own)
    for name, value in own.items():
        if is_integer(value) and abs(value) >= 2**63:
            raise InvalidRequest(kind, f"`{name}` must be a 64-bit integer, got {shown(value)}")
    with blaming(kind, part):
        bound = part.bind(info)
    if is_foreign(part):
        _check_bound(kind, part, bound, base)
    return bound


def _check_kind(kind: str, part: Any, base: Any) -> None:
    """Raise `InvalidRequest` unless a part inherits `base` and has what that leaves to it."""
    name = type(part).__name__
    if not isinstance(part, base):
        bases = " or ".join(f"dlm.{one.__name__}" for one in get_args(base) or (base,))
        raise InvalidRequest(kind, f"{name} is no {kind} part: inherit {bases}")
    if lacks := missing_members(part):
        own = {n for cls in type(part).__mro__ if is_foreign(cls) for n in vars(cls)}
        near = nearest(lacks[0], sorted(n for n in own if not n.startswith("_")))
        hint = f"; did you misspell it as {near!r}?" if near else ""
        raise InvalidRequest(kind, f"{name} lacks {', '.join(map(repr, lacks))}{hint}")


def _check_bound(kind: str, part: Any, bound: Any, base: Any) -> None:
    """Raise `RuleError` unless `bind` gave a part of the kind with traits that can be used."""
    if isinstance(bound, type) or not is_dataclass(bound) or not isinstance(bound, base):
        given = "None" if bound is None else f"an object of {type(bound).__name__}"
        raise rule_error(kind, part, "bind", f"must return the bound part, got {given}")
    for name, (words, is_right) in TRAITS.items():
        if not hasattr(bound, name):
            continue
        with blaming(kind, bound):
            value = getattr(bound, name)
        if not is_right(value):
            raise rule_error(kind, bound, name, f"must be {words}, got {shown(value)}")


def _names(value: Any) -> bool:
    return isinstance(value, Set) and all(isinstance(name, str) for name in value)


def _ids(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(is_integer, value))


def _memory(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(spec, ScratchSpec) for spec in value)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


TRAITS: Final[Mapping[str, tuple[str, Callable[[Any], bool]]]] = MappingProxyType(
    {
        "needs": ("a frozenset of names", _names),
        "clock": ("True or False", _flag),
        "one_block": ("True or False", _flag),
        "steps": ("None or an integer", lambda value: value is None or is_integer(value)),
        "post_steps": ("an integer", is_integer),
        "arms": ("an integer of at least 1", lambda value: is_integer(value) and value > 0),
        "scope": ("'block' or 'row'", lambda value: value in ("block", "row")),
        "multi_block": ("True or False", _flag),
        "restricts": ("True or False", _flag),
        "reason": ("a string", lambda value: isinstance(value, str)),
        "waits_for_clean_block": ("True or False", _flag),
        "end_ids": ("a tuple of ids", _ids),
        "exact": ("True or False", _flag),
        "at_opening": ("True or False", _flag),
        "steady": ("True or False", _flag),
        "stores": ("True or False", _flag),
        "on_edit": ("'refuse' or 'requery'", lambda value: value in ("refuse", "requery")),
        "shared_prefix": (
            "None or a SharedPrefix",
            lambda value: value is None or isinstance(value, SharedPrefix),
        ),
        "scratch": ("a tuple of ScratchSpec", _memory),
    }
)
"""What a part declares of itself: in words, and whether a value is such a thing."""
