"""`TensorStruct`: the base of structs of tensors; select, move and stack are written here once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TensorStruct:
    """A frozen dataclass whose tensors have the rows as their first dimension.

    A field is a tensor, another struct, a dict or tuple of these, or a plain value that all rows
    share. Metadata of a field specify how `cat` treats it: `fill`: the value of new places, where
    rows of different widths are stacked (for a dict: a function from the struct to the values by
    key); `join`: a function of the plain values of all structs (without it the first one stays).
    """

    def select(self, index: Tensor) -> Self:
        """The rows `index [r]`, in that order; the index is moved once to each device."""
        indices = {index.device: index}

        def take(tensor: Tensor) -> Tensor:
            if tensor.device not in indices:
                indices[tensor.device] = index.to(tensor.device)
            return tensor.index_select(0, indices[tensor.device])

        return self._map(take)

    def to(self, device: torch.device | str) -> Self:
        """The same rows on `device`."""
        return self._map(lambda tensor: tensor.to(device), lambda struct: struct.to(device))

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """Stack the rows of all `parts`."""
        first, stacked = parts[0], {}
        for f in fields(cls):
            values = [getattr(part, f.name) for part in parts]
            fill, join = f.metadata.get("fill"), f.metadata.get("join")
            if join is not None:
                stacked[f.name] = join(values)
            else:
                stacked[f.name] = _cat(values, fill(first) if callable(fill) else fill)
        return replace(first, **stacked)

    def _map(
        self,
        leaf: Callable[[Tensor], Tensor],
        nested: Callable[[TensorStruct], TensorStruct] | None = None,
    ) -> Self:
        """The struct with `leaf` of every tensor and `nested` of every struct in it."""

        def mapped(value: Any) -> Any:
            if isinstance(value, Tensor):
                return leaf(value)
            if isinstance(value, TensorStruct):
                return value._map(leaf) if nested is None else nested(value)
            if isinstance(value, Mapping):
                return {key: mapped(item) for key, item in value.items()}
            return tuple(map(mapped, value)) if isinstance(value, tuple) else value

        return replace(self, **{f.name: mapped(getattr(self, f.name)) for f in fields(self)})


def _cat(values: Sequence[Any], fill: Any) -> Any:
    """The values of one field, stacked; of plain values the first."""
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(list(values if fill is None else _widened(values, fill)))
    if isinstance(first, TensorStruct):
        return type(first).cat(values)
    if isinstance(first, Mapping):
        fills = fill or {}
        return {key: _cat([v[key] for v in values], fills.get(key)) for key in first}
    if isinstance(first, tuple):
        return tuple(_cat(items, None) for items in zip(*values, strict=True))
    return first


def _widened(tensors: Sequence[Tensor], fill: float) -> Iterator[Tensor]:
    """The tensors `[R, ...]`, padded at the end of each dimension but the first to the widest."""
    widest = [max(sizes) for sizes in zip(*(t.shape[1:] for t in tensors), strict=True)]
    for tensor in tensors:
        more = [wide - own for wide, own in zip(widest, tensor.shape[1:], strict=True)]
        pad = [n for missing in reversed(more) for n in (0, missing)]
        yield F.pad(tensor, pad, value=fill) if any(pad) else tensor
