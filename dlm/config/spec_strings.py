"""Spec strings: `name`, or `name(argument=literal, ...)`, for every kind of part."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from types import MappingProxyType
from typing import Any, Final

from dlm.config.argument_types import check_arguments, with_tuples
from dlm.errors import (
    InvalidRequest,
    blaming,
    is_foreign,
    listed,
    nearest,
    require_text,
    shown,
    unknown_name,
)
from dlm.registry import Registry
from dlm.sandbox.syntax import expression_tree

GROUP: Final = "dlm.strategies"
"""Entry point group of installed plug-ins."""
LONGEST: Final = 20_000
"""Characters of a spec string: hundreds of ids fit in."""
METHODS: Final = ("propose", "edit", "plan", "advance", "spent", "__call__", "run", "score")
"""Methods by which a class of a user is taken for a part."""
UNDECORATED: Final = "must be a dataclass, as every part: write @dataclass(frozen=True) above it"

KINDS: Final[Mapping[str, Registry]] = MappingProxyType(
    {
        "guide": Registry(
            "guide",
            {
                "bias": "dlm.guidance.logits:Bias",
                "forbid": "dlm.guidance.logits:Forbid",
                "cfg": "dlm.guidance.arms:CFG",
            },
            GROUP,
        ),
        "blocks": Registry(
            "blocks",
            {
                "fixed": "dlm.unmasking.blocks.fixed:Fixed",
                "whole": "dlm.unmasking.blocks.fixed:Whole",
                "sub_blocks": "dlm.unmasking.blocks.fixed:SubBlocks",
                "sliding": "dlm.unmasking.blocks.fixed:Sliding",
                "adaptive": "dlm.unmasking.blocks.adaptive:AdaBlock",
                "pipeline": "dlm.unmasking.blocks.pipeline:Pipeline",
            },
            GROUP,
        ),
        "unmask": Registry(
            "unmask",
            {
                "threshold": "dlm.unmasking.unmask.threshold:Threshold",
                "factor": "dlm.unmasking.unmask.threshold:Factor",
                "leap": "dlm.unmasking.unmask.local_leap:Leap",
                "hierarchical": "dlm.unmasking.unmask.local_leap:Hierarchical",
                "entropy_bound": "dlm.unmasking.unmask.entropy:EntropyBound",
                "low_entropy": "dlm.unmasking.unmask.entropy:LowEntropy",
                "klass": "dlm.unmasking.unmask.klass:KLASS",
                "running_mean": "dlm.unmasking.unmask.threshold:RunningMean",
                "topk": "dlm.unmasking.unmask.topk:TopK",
                "dynamic": "dlm.unmasking.unmask.threshold:Dynamic",
                "slowfast": "dlm.unmasking.unmask.slowfast:SlowFast",
                "ancestral": "dlm.unmasking.unmask.ancestral:Ancestral",
                "freedave": "dlm.unmasking.unmask.freedave:FreeDave",
                "verified": "dlm.unmasking.unmask.verified:Verified",
                "wide_in": "dlm.unmasking.unmask.wide_in:WideIn",
                "guided": "dlm.unmasking.unmask.guided:Guided",
                "everything": "dlm.unmasking.unmask.threshold:CommitAll",
            },
            GROUP,
        ),
        "edit": Registry(
            "edit",
            {
                "rcr": "dlm.unmasking.edit.rcr:RCR",
                "rewrite": "dlm.unmasking.edit.rewrite:Rewrite",
                "t2m": "dlm.unmasking.edit.targeted:T2M",
                "narrow_out": "dlm.unmasking.edit.wino:NarrowOut",
                "backtrack": "dlm.unmasking.edit.backtrack:Backtrack",
                "reconsider": "dlm.unmasking.edit.reconsider:Reconsider",
            },
            GROUP,
        ),
        "stop": Registry(
            "stop",
            {
                "eos": "dlm.unmasking.stop.end_ids:Eos",
                "prophet": "dlm.unmasking.stop.early_commit:Prophet",
                "stable": "dlm.unmasking.stop.early_commit:Stable",
                "max_nfe": "dlm.unmasking.stop.budgets:MaxNFE",
                "max_seconds": "dlm.unmasking.stop.budgets:MaxSeconds",
            },
            GROUP,
        ),
        "cache": Registry(
            "cache",
            {
                "none": "dlm.cache.block_freeze:NoCache",
                "prefix": "dlm.cache.block_freeze:Prefix",
                "dual": "dlm.cache.block_freeze:Dual",
                "vicinity": "dlm.cache.token_freeze:Vicinity",
                "freecache": "dlm.cache.token_freeze:FreeCache",
                "delayed": "dlm.cache.token_freeze:Delayed",
                "delayed_blocks": "dlm.cache.delayed_blocks:DelayedBlocks",
                "block_causal": "dlm.cache.block_causal:BlockCausal",
            },
            GROUP,
        ),
    }
)
"""The kinds of parts and their registered names."""


def registry_of(kind: str) -> Registry:
    """The registry of one kind. Raises `InvalidRequest` for an unknown kind."""
    if kind not in KINDS:
        raise unknown_name("part", kind, KINDS)
    return KINDS[kind]


def parse_part(kind: str, spec: Any, *, trusted: bool = True) -> Any:
    """The part that `spec` means: an object as it is, a name, `name(...)`, or `pkg.mod:Class(...)`.

    Arguments are literals, given by keyword or in the order of the part's fields. `trusted=False`
    takes registered names alone, those of dlm and of installed plug-ins: no objects, and no paths,
    which import any code. Raises `InvalidRequest` for a malformed string, an unknown name or
    argument, and for values that the part itself refuses.
    """
    return parse_with(registry_of(kind), spec, trusted=trusted)


def parse_with(registry: Registry, spec: Any, *, trusted: bool = True) -> Any:
    """The part that `spec` means among those of a registry. Raises as `parse_part` does."""
    kind = registry.kind
    if not isinstance(spec, str):
        if trusted:
            return _checked_object(registry, spec)
        raise InvalidRequest(kind, f"must be {_registered(registry)}, got {shown(spec)}")
    name, positional, keywords = _parse(kind, spec)
    if ":" in name and not trusted:
        rule = f"paths to classes are for trusted code alone: must be {_registered(registry)}"
        raise InvalidRequest(kind, f"{rule}, got {shown(spec)}")
    cls = registry.load_path(name) if ":" in name else _by_name(registry, name, trusted=trusted)
    if not is_dataclass(cls):
        raise InvalidRequest(kind, f"{shown(name)} {UNDECORATED}")
    own = [f for f in fields(cls) if not f.metadata.get("bound")]
    arguments = with_tuples(cls, _named(kind, spec, name, own, positional, keywords))
    check_arguments(kind, cls, arguments)
    try:
        with blaming(kind, cls):
            return cls(**arguments)
    except InvalidRequest as error:
        raise _of_part(kind, [f.name for f in own], error) from error
    except TypeError as error:
        trace = error.__traceback__
        if is_foreign(cls) and trace is not None and trace.tb_next is not None:
            raise  # of its own `__post_init__`; else an argument is missing
        lacks = [f.name for f in own if _is_needed(f) and f.name not in arguments]
        reason = f" lacks {', '.join(map(repr, lacks))}" if lacks else f": {error}"
        raise InvalidRequest(kind, f"{shown(spec)}{reason}") from error


def _named(
    kind: str,
    spec: str,
    name: str,
    own: Sequence[Field[Any]],
    positional: Sequence[Any],
    keywords: Mapping[str, Any],
) -> dict[str, Any]:
    """The arguments of a spec by the names of the part's `own` fields. Raises `InvalidRequest`."""
    known, in_order = [f.name for f in own], [f.name for f in own if not f.kw_only]
    if len(positional) > len(in_order):
        raise InvalidRequest(
            kind,
            f"{shown(name)} takes at most {len(in_order)} arguments ({', '.join(in_order)}) "
            f"without their names, got {shown(spec)}",
        )
    arguments = dict(zip(in_order, positional, strict=False))
    for key, value in keywords.items():
        if key not in known:
            rule = unknown_name(kind, key, known).message
            raise InvalidRequest(kind, f"an argument of {name} {rule}")
        if key in arguments:
            raise InvalidRequest(kind, f"`{key}` is given twice in {shown(spec)}")
        arguments[key] = value
    return arguments


def _of_part(kind: str, known: Sequence[str], error: InvalidRequest) -> InvalidRequest:
    """An error of a part as one of its kind, if it names an argument of the part."""
    if error.param == kind or error.param not in known:
        return error
    is_rule = error.message.startswith("must ")
    told = f"`{error.param}` {error.message}" if is_rule else f"`{error.param}`: {error.message}"
    return InvalidRequest(kind, told)


def _by_name(registry: Registry, name: str, *, trusted: bool) -> type:
    """The class of a registered name.

    Raises `InvalidRequest` for an unknown name; if it resembles none, `trusted` callers read how a
    class of their own is given.
    """
    try:
        return registry.load(name)
    except InvalidRequest as error:
        if name in registry or nearest(name, registry.names()) or not trusted:
            raise
        module, _, own = name.rpartition(".")
        path = f"{module or 'package.module'}:{own}"
        hint = f"; a class of your own is given as {shown(path)}" if own.isidentifier() else ""
        raise InvalidRequest(registry.kind, error.message + hint) from None


def _checked_object(registry: Registry, part: Any) -> Any:
    """A part that is given as an object.

    Raises `InvalidRequest` for a class, and for an object of no dataclass.
    """
    is_class = isinstance(part, type)
    cls = part if is_class else type(part)
    if is_dataclass(cls):
        if not is_class:
            return part
        rule = f"must be an object, got the class {cls.__qualname__}: give {cls.__name__}()"
        raise InvalidRequest(registry.kind, rule)
    if any(name in vars(base) for base in cls.__mro__ for name in METHODS):
        raise InvalidRequest(registry.kind, f"{cls.__qualname__} {UNDECORATED}")
    known = listed(registry.names())
    raise InvalidRequest(registry.kind, f"must be one of {known} or a part, got {shown(part)}")


def _registered(registry: Registry) -> str:
    """The choices of a request that may import nothing, in words."""
    return f"a registered name (one of {listed(registry.names())})"


def _is_needed(field: Field[Any]) -> bool:
    """True if an argument has no default."""
    return field.init and field.default is MISSING and field.default_factory is MISSING


def _parse(kind: str, spec: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Split `name(arguments)` into its name and literal arguments."""
    if len(spec) > LONGEST:
        raise InvalidRequest(
            kind, f"must have at most {LONGEST} characters, got {len(spec)}: {shown(spec)}"
        )
    name, bracket, rest = require_text(kind, spec).strip().partition("(")
    if not bracket:
        return name, [], {}
    form = "must be a name or name(argument=value, ...) with literal values"
    try:
        call = expression_tree(f"part({rest}").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError  # two pairs of brackets, or an attribute
        if any(k.arg is None for k in call.keywords):
            raise ValueError
        positional = [ast.literal_eval(a) for a in call.args]
        keywords = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise InvalidRequest(kind, f"{form}, got {shown(spec)}") from error
    if len(keywords) < len(call.keywords):
        raise InvalidRequest(kind, f"an argument is given twice in {shown(spec)}")
    return name.strip(), positional, keywords
