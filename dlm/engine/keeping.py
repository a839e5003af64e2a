"""What parts keep between steps: new values of scratch tensors, for the rows that take part."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dlm.core import Entries
from dlm.engine.cohort import Cohort


def kept(cohort: Cohort, scratch: Mapping[str, Tensor | Entries] | None) -> Callable[[], None]:
    """Check new values of scratch tensors; what is returned writes them.

    Rows that have ended keep theirs. Raises `ValueError` for another shape.
    """
    writes = [_written(cohort, name, value) for name, value in (scratch or {}).items()]

    def write() -> None:
        for tensor, at, value in writes:
            tensor.copy_(value) if at is None else tensor.index_copy_(0, at, value)

    return write


def _written(
    cohort: Cohort, name: str, value: Tensor | Entries
) -> tuple[Tensor, Tensor | None, Tensor]:
    """A scratch tensor, flat where entries of it are written, their places, and the values."""
    old = cohort.rows.scratch[name]
    if isinstance(value, Entries):
        flat = old.flatten(0, 1)
        _require_shape(value.values, (len(value.at), *flat.shape[1:]))
        row = torch.div(value.at, old.shape[1], rounding_mode="floor")
        spare = (row + 1) * old.shape[1] - 1  # which nobody reads
        at = torch.where(cohort.active.take(row), value.at, spare)
        return flat, at, value.values.to(old.dtype)
    _require_shape(value, old.shape)
    return old, None, torch.where(_wide(cohort.active, old), value.to(old.dtype), old)


def _require_shape(value: Tensor, shape: tuple[int, ...]) -> None:
    if value.shape != shape:
        raise ValueError(f"scratch must have shape {list(shape)}, got {list(value.shape)}")


def _wide(mask: Tensor, like: Tensor) -> Tensor:
    """A mask over the first dimension, to go with all others."""
    return mask.view(-1, *[1] * (like.dim() - 1))
