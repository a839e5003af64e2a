"""`Parts`: the bound parts of a row, and what they have in common with those of other rows."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, fields
from typing import Any, Final

from dlm.core.guide import Guide
from dlm.core.protocols import (
    BlockScheduler,
    CacheManager,
    EarlyCommit,
    Editor,
    Part,
    Scheduled,
    StopRule,
    Unmasker,
)
from dlm.core.rows import ScratchSpec
from dlm.core.view import STATISTICS

PLAIN: Final = (bool, str, bytes, tuple, frozenset, type(None))
"""Types of fields whose values are compared."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The bound parts of a row, in the order in which a step calls them."""

    guide: tuple[Guide, ...]
    blocks: BlockScheduler
    unmask: Unmasker
    edit: tuple[Editor, ...]
    early: tuple[EarlyCommit, ...]
    stop: tuple[StopRule, ...]
    cache: CacheManager

    def with_kinds(self) -> list[tuple[str, Part]]:
        """Every part with its kind."""
        kinds: list[tuple[str, tuple[Part, ...]]] = [
            ("guide", self.guide),
            ("blocks", (self.blocks,)),
            ("unmask", (self.unmask,)),
            ("edit", self.edit),
            ("stop", self.early),
            ("stop", self.stop),
            ("cache", (self.cache,)),
        ]
        return [(kind, part) for kind, own in kinds for part in own]

    def all(self) -> tuple[Part, ...]:
        """Every part, flat."""
        return tuple(part for _, part in self.with_kinds())

    @property
    def signature(self) -> Hashable:
        """The values that rows must share to be one group.

        It holds the classes, every value that is not a plain number, and the traits of the cache
        that a whole group has.
        """
        shape = (len(self.guide), len(self.edit), len(self.early), len(self.stop), self.arms)
        parts = tuple((type(part), _fixed_fields(part)) for part in self.all())
        cache = self.cache
        return shape, parts, (cache.exact, cache.on_edit, cache.stores, cache.shared_prefix)

    @property
    def eligibility_filter(self) -> BlockScheduler | None:
        """The block scheduler, when it narrows what a step may commit."""
        return self.blocks if self.blocks.restricts else None

    @property
    def needs(self) -> frozenset[str]:
        """The statistics and auxiliary models that some part reads."""
        return frozenset[str]().union(*(part.needs for part in self.all()))

    @property
    def aux(self) -> tuple[str, ...]:
        """The auxiliary models that some part reads."""
        return tuple(sorted(self.needs - STATISTICS))

    @property
    def extenders(self) -> tuple[tuple[str, Scheduled], ...]:
        """The parts that look through shadow tokens, with their kinds."""
        parts: tuple[tuple[str, Scheduled], ...] = (
            ("unmask", self.unmask),
            *(("edit", editor) for editor in self.edit),
        )
        return tuple(own for own in parts if type(own[1]).extend is not Scheduled.extend)

    @property
    def verifies(self) -> bool:
        """True if the unmasker may ask the model what it says from left to right."""
        return type(self.unmask).asks is not Unmasker.asks

    @property
    def clock(self) -> bool:
        """True if a schedule bounds the steps, so that a step may commit nothing."""
        return self.unmask.clock

    @property
    def paced(self) -> bool:
        """True if a schedule of the unmasker or of an editor allows steps that change nothing."""
        return self.clock or any(editor.clock for editor in self.edit)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The finish reasons of the early commits and stop rules, in the order of their calls."""
        return (*(rule.reason for rule in self.early), *(rule.reason for rule in self.stop))

    @property
    def whole_row(self) -> bool:
        """True if an editor may reopen anything that was generated."""
        return any(e.scope == "row" for e in self.edit)

    @property
    def armed(self) -> Guide | None:
        """The guide that reads several inputs of each row, if there is one."""
        return next((guide for guide in self.guide if guide.arms > 1), None)

    @property
    def step_guides(self) -> tuple[Guide, ...]:
        """The guides that depend on the steps before, or on another model's reading of a step."""
        return tuple(g for g in self.guide if g.scratch or g.needs - STATISTICS)

    @property
    def arms(self) -> int:
        """Model inputs of each row."""
        return 1 if self.armed is None else self.armed.arms

    @property
    def scratch(self) -> tuple[ScratchSpec, ...]:
        """The tensors that the parts declare to keep between steps."""
        return tuple(spec for part in self.all() for spec in part.scratch)


def is_number(value: object) -> bool:
    """True if a field is a plain number, which rows may differ in."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _fixed_fields(part: Any) -> tuple[Hashable, ...]:
    values = ((f.name, getattr(part, f.name)) for f in fields(part))
    return tuple((name, _fixed(value), is_number(value)) for name, value in values)


def _fixed(value: Any) -> Any:
    """The part of a field that rows must share: nothing of a number, the value where values can be
    compared, else the very object (a tensor of somebody's own part, say).
    """
    if is_number(value):
        return None
    return value if isinstance(value, PLAIN) else id(value)
