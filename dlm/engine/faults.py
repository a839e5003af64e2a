"""Faults of rows: numbers that are none, and rows without an end; whoever is to blame is named."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dlm.core import Parts
from dlm.decode.apply import Op
from dlm.decode.outputs import PositionChange
from dlm.errors import EngineError, charge, culprit, is_foreign, not_finite


def require_finite(changes: Sequence[PositionChange], parts: Parts, step: int) -> None:
    """Raise `CheckpointError` where the confidence of a commit of a step is no number."""
    for change in changes:
        if change.op == Op.COMMIT and math.isnan(change.conf):
            foreign = (part for part in (parts.unmask, *parts.edit) if is_foreign(part))
            others = ", ".join(type(part).__name__ for part in (*parts.guide, *foreign))
            raise not_finite(f" in step {step}", others)


def endless(parts: Parts, steps: int, open_count: int) -> EngineError:
    """The error of a row that has not ended after `steps`, `open_count` positions being open: of
    the rule that a user wrote, if there is one.
    """
    error = EngineError(
        f"the row has no end after {steps} steps, {open_count} positions are "
        "open: nothing was committed there, or MASK, which is never written"
    )
    rules = [("unmask", parts.unmask, "propose"), *(("edit", e, "edit") for e in parts.edit)]
    for kind, part, method in rules:
        if is_foreign(part):
            charge(error, culprit(kind, part, method))
            break
    return error
