"""The noising process a model was trained with decides the ids of open positions.

Absorbing diffusion (masked models) opens positions with MASK; uniform diffusion (Duo,
DiffusionGemma) with a random token, so that an open position is known by its kind alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dlm.core.rows import Kind
from dlm.rng import Stream, uniforms


class Process(Protocol):
    """A noising process: the kind and the ids of positions that are opened."""

    @property
    def open_kind(self) -> Kind:
        """`MASK` or `NOISE`."""
        ...

    def prior(self, seed: Tensor, path: Tensor, pos: Tensor, step: Tensor) -> Tensor:
        """The ids `[R, W]` of the positions `pos [R, W]` when they are opened in `step [R]`."""
        ...


@dataclass(frozen=True, slots=True)
class Absorbing:
    """Open positions are masked."""

    mask_id: int
    open_kind = Kind.MASK

    def prior(self, seed: Tensor, path: Tensor, pos: Tensor, step: Tensor) -> Tensor:
        """All MASK."""
        return torch.full_like(pos, self.mask_id)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Open positions hold a token drawn uniformly from the vocabulary."""

    vocab_size: int
    open_kind = Kind.NOISE

    def prior(self, seed: Tensor, path: Tensor, pos: Tensor, step: Tensor) -> Tensor:
        """Fresh noise, keyed by (seed, path, position, step)."""
        return (uniforms(seed, path, pos, step, Stream.NOISE) * self.vocab_size).long()
