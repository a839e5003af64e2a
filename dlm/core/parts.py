"""`Parts`: the bound parts of a row, and what they have in common with those of other rows."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, fields
from typing import Any, Final

from dlm.core.protocols import (
    ArmedGuide,
    BlockScheduler,
    CacheManager,
    Editor,
    EligibilityFilter,
    Extender,
    Guide,
    Scratched,
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
    stop: tuple[StopRule, ...]
    cache: CacheManager

    def all(self) -> tuple[Any, ...]:
        """Every part, flat."""
        return (*self.guide, self.blocks, self.unmask, *self.edit, *self.stop, self.cache)

    @property
    def signature(self) -> Hashable:
        """The values that rows must share to be one group.

        It holds the classes, every value that is not a plain number, and the cache, whose plans are
        made without them.
        """
        shape = (len(self.guide), len(self.edit), len(self.stop), self.arms)
        parts = tuple((type(part), _fixed_fields(part)) for part in self.all()[:-1])
        return shape, parts, self.cache

    @property
    def eligibility_filter(self) -> EligibilityFilter | None:
        """The block scheduler, when it narrows what a step may commit."""
        scheduler = self.blocks
        return (
            scheduler if isinstance(scheduler, EligibilityFilter) and scheduler.restricts else None
        )

    @property
    def needs(self) -> frozenset[str]:
        """The statistics and auxiliary models that some part reads."""
        stops = (getattr(rule, "needs", frozenset[str]()) for rule in self.stop)
        return self.unmask.needs.union(*(e.needs for e in self.edit), *stops)

    @property
    def aux(self) -> tuple[str, ...]:
        """The auxiliary models that some part reads."""
        return tuple(sorted(self.needs - STATISTICS))

    @property
    def extenders(self) -> tuple[Extender, ...]:
        """The editors that look through shadow tokens."""
        return tuple(e for e in self.edit if isinstance(e, Extender))

    @property
    def clock(self) -> bool:
        """True if a schedule bounds the steps, so that a step may commit nothing."""
        return self.unmask.clock

    @property
    def paced(self) -> bool:
        """True if a schedule of the unmasker or of an editor allows steps that change nothing."""
        return self.clock or any(getattr(editor, "clock", False) for editor in self.edit)

    @property
    def whole_row(self) -> bool:
        """True if an editor may reopen anything that was generated."""
        return any(e.scope == "row" for e in self.edit)

    @property
    def armed(self) -> ArmedGuide | None:
        """The guide that reads several inputs of each row, if there is one."""
        return next((g for g in self.guide if isinstance(g, ArmedGuide)), None)

    @property
    def arms(self) -> int:
        """Model inputs of each row."""
        return 1 if self.armed is None else self.armed.arms

    @property
    def scratch(self) -> tuple[ScratchSpec, ...]:
        """The tensors that the parts declare to keep between steps."""
        return tuple(
            spec for part in self.all() if isinstance(part, Scratched) for spec in part.scratch
        )


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
