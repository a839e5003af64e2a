"""The noising process a model was trained with decides the ids of open positions.

Absorbing diffusion (masked models) opens positions with MASK; uniform diffusion (Duo,
DiffusionGemma) with a random token, so that an open position is known by its kind alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from dlm.core.rows import Kind
from dlm.rng import Stream, uniforms

Level = Tensor | float
"""The probability that a token is not noised yet."""


class Process(Protocol):
    """A noising process: the kind and the ids of positions that are opened, and its steps.

    The level `alpha` is the probability that a token is still there, `s < t` are times of a step
    backwards, `alpha_s >= alpha_t`. `ids [...]` are those of time t, `x0 [..., V]` what the model
    predicts: probabilities, without MASK. Levels are numbers, or tensors that broadcast to ids.
    """

    @property
    def open_kind(self) -> Kind:
        """`MASK` or `NOISE`."""
        ...

    def prior(self, seed: Tensor, path: Tensor, pos: Tensor, step: Tensor) -> Tensor:
        """The ids `[R, W]` of the positions `pos [R, W]` when they are opened in `step [R]`."""
        ...

    def forward(self, x0: Tensor, alpha_s: Level) -> Tensor:
        """`[..., V]`: the probabilities of ids at time s, of a token drawn from `x0`."""
        ...

    def posterior(self, ids: Tensor, x0: Tensor, alpha_s: Level, alpha_t: Level) -> Tensor:
        """`[..., V]`: the probabilities of ids at time s, given those at time t and `x0`."""
        ...


@dataclass(frozen=True, slots=True)
class Absorbing:
    """Open positions are masked."""

    mask_id: int
    open_kind = Kind.MASK

    def prior(self, seed: Tensor, path: Tensor, pos: Tensor, step: Tensor) -> Tensor:
        """All MASK."""
        return torch.full_like(pos, self.mask_id)

    def forward(self, x0: Tensor, alpha_s: Level) -> Tensor:
        """MASK, or else the token (MDLM, arXiv 2406.07524, eq. 3)."""
        level = _wide(alpha_s, x0)
        return level * x0 + (1 - level) * self._mask(x0)

    def posterior(self, ids: Tensor, x0: Tensor, alpha_s: Level, alpha_t: Level) -> Tensor:
        """A token stays; MASK falls with probability `(alpha_s - alpha_t) / (1 - alpha_t)` (MDLM,
        eq. 6).
        """
        now, then = _wide(alpha_t, x0), _wide(alpha_s, x0)
        masked = ((then - now) * x0 + (1 - then) * self._mask(x0)) / (1 - now)
        return torch.where((ids == self.mask_id)[..., None], masked, _one_hot(ids, x0))

    def _mask(self, like: Tensor) -> Tensor:
        """`[V]`: all probability on MASK."""
        return _one_hot(torch.tensor(self.mask_id, device=like.device), like)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Open positions hold a token drawn uniformly from the vocabulary."""

    vocab_size: int
    open_kind = Kind.NOISE

    def prior(self, seed: Tensor, path: Tensor, pos: Tensor, step: Tensor) -> Tensor:
        """Fresh noise, keyed by (seed, path, position, step)."""
        return (uniforms(seed, path, pos, step, Stream.NOISE) * self.vocab_size).long()

    def forward(self, x0: Tensor, alpha_s: Level) -> Tensor:
        """The token, or else any one of the vocabulary."""
        level = _wide(alpha_s, x0)
        return level * x0 + (1 - level) / self.vocab_size

    def posterior(self, ids: Tensor, x0: Tensor, alpha_s: Level, alpha_t: Level) -> Tensor:
        """Bayes' rule on the two noising steps (Duo, arXiv 2506.10892, with V tokens). `x0` may be
        any distribution: it stands for the token, as in Duo's sampler.
        """
        size, here = self.vocab_size, _one_hot(ids, x0)
        now, then = _wide(alpha_t, x0), _wide(alpha_s, x0)
        kept = now / then  # a token of time s is still there at time t
        at_ids = x0.gather(-1, ids[..., None])
        top = size * now * x0 * here + (kept - now) * here + (then - now) * x0
        top = top + (1 - kept) * (1 - then) / size
        probs: Tensor = top / (size * now * at_ids + 1 - now)
        return probs


def _one_hot(ids: Tensor, like: Tensor) -> Tensor:
    """`[..., V]`: all probability on the ids."""
    return functional.one_hot(ids, like.shape[-1]).to(like.dtype)


def _wide(level: Level, x0: Tensor) -> Tensor:
    """A level with a dimension for the vocabulary."""
    return torch.as_tensor(level, dtype=x0.dtype, device=x0.device)[..., None]
