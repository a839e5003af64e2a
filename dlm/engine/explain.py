"""`explain`: what a bound config will do, in words."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from dlm.config import PRESETS, BoundConfig
from dlm.core import ModelInfo, ScratchSpec
from dlm.engine.counting import scheduled_forwards
from dlm.errors import blaming
from dlm.unmasking.blocks.fixed import SubBlocks
from dlm.unmasking.stop.budgets import MaxNFE


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
        )


def explain(bound: BoundConfig, info: ModelInfo) -> Explanation:
    """Describe the parts of `bound`."""
    texts = tuple(StopText(text) for text in bound.stop_strings)
    groups: list[tuple[str, tuple[Any, ...]]] = [
        ("guide", bound.parts.guide),
        ("blocks", (bound.parts.blocks,)),
        ("unmask", (bound.parts.unmask,)),
        ("edit", bound.parts.edit),
        ("stop", (*bound.parts.stop, *bound.budgets, *texts)),
        ("cache", (bound.parts.cache,)),
    ]
    notes = tuple(_note(kind, part) for kind, parts in groups for part in parts)
    cache = bound.parts.cache
    unknown = "" if cache.exact else "its author does not say which keys may be stale"
    return Explanation(
        notes,
        _cost(bound, info),
        cache.exact,
        getattr(cache, "stale", unknown) + _prompt_note(cache),
        _canvas(bound, info),
        _preset(bound),
    )


@dataclass(frozen=True, slots=True)
class StopText:
    """End the text before this string."""

    text: str

    tier = "T2"


def _note(kind: str, part: Any) -> PartNote:
    summary = (inspect.getdoc(type(part)) or "").split("\n\n", maxsplit=1)[0]
    with blaming(kind, part):
        tier = getattr(part, "tier_as_set", getattr(part, "tier", "own rule"))
        return PartNote(kind, _spelled(part), " ".join(summary.split()), tier)


def _spelled(part: Any) -> str:
    """The part as it would be written; options that are given by name alone are left out where
    they are at their default.
    """
    own = [f for f in fields(part) if f.repr]
    said = [f for f in own if not f.kw_only or getattr(part, f.name) != f.default]
    arguments = ", ".join(f"{f.name}={getattr(part, f.name)!r}" for f in said)
    return f"{type(part).__name__}({arguments})"


def _prompt_note(cache: Any) -> str:
    """The sentence about a prompt whose keys are made alone."""
    frozen = getattr(cache, "frozen_prompt", False)
    if frozen is False:
        return ""
    return "; the prompt's keys see nothing behind " + ("it" if frozen is True else "their chunk")


def _preset(bound: BoundConfig) -> str:
    name = bound.config.preset
    if name is None:
        return ""
    preset = PRESETS[name]
    return f"{name}: {preset.use} ({preset.source}; bundled dev split: {preset.evidence})"


def _cost(bound: BoundConfig, info: ModelInfo) -> str:
    """The number of forwards, as far as it is known beforehand, and the positions of each."""
    parts = bound.parts
    computes = getattr(parts.cache, "computes", "what its cache plans")
    arms = "" if parts.arms == 1 else f", for each of {parts.arms} inputs"
    ends = ", fewer where the answer ends before" if parts.stop else ""
    cuts = [f", {b.forwards} at the most" for b in bound.budgets if isinstance(b, MaxNFE)]
    kept = _scratch_bytes(parts.scratch, bound.length)
    memory = f"; the rules remember {kept / 2**20:.0f} MiB of each answer" if kept > 2**20 else ""
    return f"{_forwards(bound, info)}{ends}{''.join(cuts)}; each computes {computes}{arms}{memory}"


def _forwards(bound: BoundConfig, info: ModelInfo) -> str:
    """The number of forwards: that of a schedule, or from one a block to one a position.

    A canvas that is rounded up to whole blocks has a few open positions more than were asked for.
    """
    parts, open_now = bound.parts, _to_fill(bound) + info.alignment - 1
    scheduled = [part for part in (parts.unmask, *parts.edit) if hasattr(part, "steps")]
    with blaming("blocks", parts.blocks):
        count = parts.blocks.num_blocks(open_now)
    held = sum(getattr(editor, "post_steps", 0) for editor in parts.edit) * (count or open_now)
    if not scheduled:
        least = count or 1
        return _range(least + least * (held > 0), open_now + held)
    if known := scheduled_forwards(bound, scheduled[0], info.alignment):
        return _range(known[0] + (held > 0), known[1] + held)
    if isinstance(parts.blocks, SubBlocks):  # each of which starts the schedule anew
        return f"at least {-(-_to_fill(bound) // parts.blocks.sub)} forwards"
    if held:
        return f"at least {min(scheduled[0].steps or open_now, open_now) + 1} forwards"
    steps, one_by_one = scheduled[0].steps, getattr(scheduled[0], "schedule", "") == "even"
    if steps is None and one_by_one and info.alignment == 1:
        return f"{open_now} forwards"
    return f"about {min(steps or open_now, open_now)} forwards"


def _range(least: int, most: int) -> str:
    return f"{least} forwards" if least == most else f"{least} to {most} forwards"


def _scratch_bytes(specs: Sequence[ScratchSpec], length: int) -> int:
    """Bytes of the parts' tensors for the positions of an answer."""
    each = (spec.dtype.itemsize * (spec.width or 1) for spec in specs if spec.per == "token")
    return length * sum(each)


def _to_fill(bound: BoundConfig) -> int:
    """The open positions of the canvas."""
    return bound.length - sum(token is not None for token in bound.pinned)


def _canvas(bound: BoundConfig, info: ModelInfo) -> str:
    """Its length, what is given of it, and the attention over it."""
    told = f"{bound.length} new tokens, {info.attention} attention"
    if bound.pinned:
        pinned = bound.length - _to_fill(bound)
        told = f"{bound.length} positions, {pinned} of them given, {info.attention} attention"
    if info.alignment > 1:
        told += f", rounded up to whole blocks of {info.alignment}"
    return told
