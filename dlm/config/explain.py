"""`explain`: what a bound config will do, in words."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Final

from dlm.config.binding import BoundConfig
from dlm.config.counting import forwards, open_positions
from dlm.config.presets import PRESETS
from dlm.core import ModelInfo, Part, ScratchSpec
from dlm.errors import blaming

TIERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "T1": "reproduces recorded runs of public reference code",
        "T2": "equals a textbook version in the tests",
        "T3": "a reconstruction from abstracts",
    }
)
"""The meaning of a part's tier."""


@dataclass(frozen=True, slots=True)
class PartNote:
    """One part: its kind, how it is written, what it does, and its tier (`TIERS`)."""

    kind: str
    part: str
    does: str
    tier: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The parts in the order in which a step calls them, and what they come to.

    `cost`: how many forwards an answer takes, and what each computes · `exact`: the result equals
    decoding without a cache · `stale`: which reused keys may be out of date, and how long (empty:
    none) · `preset`: what the named combination is for, and where it comes from.
    """

    parts: tuple[PartNote, ...]
    cost: str
    exact: bool
    stale: str
    canvas: str
    preset: str = ""

    def __str__(self) -> str:
        lines = [f"preset  {self.preset}"] if self.preset else []
        for note in self.parts:
            lines += [f"{note.kind:7} {note.part}  [{note.tier}]", f"        {note.does}"]
        keys = f"approximate: {self.stale}" if self.stale else "exact: equal to no cache"
        return "\n".join(
            [*lines, f"keys    {keys}", f"cost    {self.cost}", f"canvas  {self.canvas}"]
            + [f"[{tier}]    {words}" for tier, words in TIERS.items() if tier in self._tiers]
        )

    @property
    def _tiers(self) -> set[str]:
        return {note.tier for note in self.parts}


def explain(bound: BoundConfig, info: ModelInfo) -> Explanation:
    """Describe the parts of `bound`."""
    cache = bound.parts.cache
    *notes, last = (_note(kind, part) for kind, part in bound.parts.with_kinds())
    notes += [_note("stop", budget) for budget in bound.budgets]
    ends = "End the text before this string."
    notes += [PartNote("stop", repr(text), ends, "T2") for text in bound.stop_strings]
    return Explanation(
        (*notes, last),
        _cost(bound, info),
        cache.exact,
        "" if cache.exact else cache.stale,
        _canvas(bound, info),
        _preset(bound),
    )


def _note(kind: str, part: Part) -> PartNote:
    summary = (inspect.getdoc(type(part)) or "").split("\n\n", maxsplit=1)[0]
    with blaming(kind, part):
        return PartNote(kind, _spelled(part), " ".join(summary.split()), part.tier_as_set)


def _spelled(part: Any) -> str:
    """The part as it would be written; options that are given by name alone are left out where
    they are at their default.
    """
    own = [f for f in fields(part) if f.repr]
    said = [f for f in own if not f.kw_only or getattr(part, f.name) != f.default]
    arguments = ", ".join(f"{f.name}={getattr(part, f.name)!r}" for f in said)
    return f"{type(part).__name__}({arguments})"


def _preset(bound: BoundConfig) -> str:
    """Its use and source, and its result on the bundled tasks."""
    name = bound.config.preset
    if name is None:
        return ""
    preset = PRESETS[name]
    return f"{name}: {preset.use}; from {preset.source}; on the bundled tasks: {preset.evidence}"


def _cost(bound: BoundConfig, info: ModelInfo) -> str:
    """The number of forwards, as far as it is known beforehand, and the positions of each."""
    parts = bound.parts
    arms = "" if parts.arms == 1 else f", for each of {parts.arms} inputs"
    ends = ", fewer where the answer ends before" if parts.early or parts.stop else ""
    bounds = (budget.most_forwards for budget in bound.budgets)
    cuts = [f", {most} at the most" for most in bounds if most is not None]
    memory = _scratch_bytes(parts.scratch, bound.length) / 2**20
    told = f"; the rules remember {memory:.0f} MiB of each answer" if memory > 1 else ""
    number, computes = forwards(bound, info), parts.cache.computes
    return f"{number}{ends}{''.join(cuts)}; each computes {computes}{arms}{told}"


def _scratch_bytes(specs: Sequence[ScratchSpec], length: int) -> int:
    """Bytes of the parts' tensors for the positions of an answer."""
    each = (spec.dtype.itemsize * (spec.width or 1) for spec in specs if spec.per == "token")
    return length * sum(each)


def _canvas(bound: BoundConfig, info: ModelInfo) -> str:
    """Its length, what is given of it, and the attention over it."""
    told = f"{bound.length} new tokens, {info.attention} attention"
    if bound.pinned:
        pinned = bound.length - open_positions(bound)
        told = f"{bound.length} positions, {pinned} of them given, {info.attention} attention"
    if info.alignment > 1:
        told += f", rounded up to whole blocks of {info.alignment}"
    return told
