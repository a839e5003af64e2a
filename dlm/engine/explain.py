"""`explain`: what a bound config will do, in words."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from dlm.config import BoundConfig
from dlm.core import ModelInfo


@dataclass(frozen=True, slots=True)
class PartNote:
    """One part: its kind, how it is written, what it does, and its tier of truth.

    The tiers: T1 recorded parity, T2 textbook twin.
    """

    kind: str
    part: str
    does: str
    tier: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The parts in the order in which a step calls them.

    `exact`: the result equals decoding without a cache.
    """

    parts: tuple[PartNote, ...]
    exact: bool
    canvas: str

    def __str__(self) -> str:
        lines = [
            f"{note.kind:7} {note.part}  [{note.tier}]\n        {note.does}" for note in self.parts
        ]
        lines.append(
            "keys    "
            + (
                "exact: equal to no cache"
                if self.exact
                else "approximate: reused keys may be stale"
            )
        )
        return "\n".join([*lines, f"canvas  {self.canvas}"])


def explain(bound: BoundConfig, info: ModelInfo) -> Explanation:
    """Describe the parts of `bound`."""
    groups: list[tuple[str, tuple[Any, ...]]] = [
        ("guide", bound.parts.guide),
        ("blocks", (bound.parts.blocks,)),
        ("unmask", (bound.parts.unmask,)),
        ("edit", bound.parts.edit),
        ("stop", (*bound.parts.stop, *bound.budgets)),
        ("cache", (bound.parts.cache,)),
    ]
    notes = tuple(_note(kind, part) for kind, parts in groups for part in parts)
    canvas = f"{bound.length} new tokens, {info.attention} attention"
    if bound.given:
        pinned = sum(token is not None for token in bound.given)
        canvas = f"{bound.length} positions, {pinned} of them given, {info.attention} attention"
    if info.alignment > 1:
        canvas += f", rounded up to whole blocks of {info.alignment}"
    return Explanation(notes, bound.parts.cache.exact, canvas)


def _note(kind: str, part: Any) -> PartNote:
    summary = (inspect.getdoc(type(part)) or "").split("\n\n", maxsplit=1)[0]
    return PartNote(kind, repr(part), " ".join(summary.split()), getattr(part, "tier", "own rule"))
