"""Randomness without state: every uniform is a function of its key, every draw of its own row.

A key is (seed, path, position, step, stream). Nothing reads or advances a generator, so a result
does not depend on batch mates, on their order, on the device or on what ran before. The hash is a
counter-based one after SplitMix64 (Steele, Lea, Flood 2014): the row's part of the key is mixed
once, positions walk from there in steps of the golden ratio, and two multiply-xorshift rounds
(Stafford's variant 13) spread each counter over 64 bits.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

CHUNK: Final = 512
"""Tokens per chunk of the cumulative sum that `draw` inverts."""

# Odd 64-bit constants as signed int64: int64 tensor arithmetic wraps, i.e. works modulo 2^64.
_POSITION: Final = 0x9E3779B97F4A7C15 - 2**64  # 2^64 / golden ratio
_PATH: Final = 0xD1B54A32D192ED03 - 2**64
_STEP: Final = 0x8CB92BA72F3D8DD7 - 2**64
_STREAM: Final = 0xAEF17502108EF2D9
_ROW_MIX: Final = 0xFF51AFD7ED558CCD - 2**64  # MurmurHash3
_MIX_1: Final = 0xBF58476D1CE4E5B9 - 2**64  # SplitMix64
_MIX_2: Final = 0x94D049BB133111EB - 2**64
_BELOW_ONE: Final = 1.0 - 2.0**-53


class Stream(IntEnum):
    """Independent streams of uniforms under one key; their numbers decide every seeded result."""

    DRAW = 0
    """Draws tokens."""
    ORDER = 1
    """Orders positions."""
    NOISE = 2
    """Draws the ids of positions opened as noise."""
    TILT = 3
    """Draws tokens from distributions that a reward has tilted."""


def uniforms(seed: Tensor, path: Tensor, pos: Tensor, step: Tensor, stream: int) -> Tensor:
    """Uniforms in [0, 1) on the grid of 2^-53, one for each row and position.

    `seed`, `path`, `step` are int64 [R] (or [1]), `pos` is int64 [R,W] (or [W]), all on one device;
    `stream` separates independent uses of the same key. Returns float64 [R,W]; the same bits on
    every device. Any int64 is a valid key.
    """
    row = torch.add(torch.add(seed, path, alpha=_PATH), step, alpha=_STEP)  # [R]
    row = _xorshift_(row.add_(_wrap(stream * _STREAM)), 32).mul_(_ROW_MIX)
    bits = torch.add(row[:, None], pos, alpha=_POSITION)  # [R,W]
    bits = _xorshift_(bits, 30).mul_(_MIX_1)
    bits = _xorshift_(bits, 27).mul_(_MIX_2)
    # SplitMix64's last xorshift is left out: it changes nothing above 2^-31 of the result.
    return bits.bitwise_right_shift_(11).bitwise_and_(2**53 - 1).double().mul_(2.0**-53)


def draw(probs: Tensor, u: Tensor) -> Tensor:
    """One token per row by inverting its cumulative distribution at a uniform.

    `probs` is [N,V], non-negative, any float type, not necessarily normalised (the total of a row
    must be positive and finite); `u` is float64 [N] in [0, 1). Returns int64 [N]: the first token
    whose cumulative value exceeds u * total. Sums are float64: over chunks of 512 tokens, then
    inside the one chunk that holds the target, so that no float64 copy of the cumulative [N,V] is
    made. A token of probability 0 is never returned, whatever is lost to rounding, and rows do not
    influence each other. A row without any mass gives 0.
    """
    vocab = probs.shape[-1]
    if vocab % CHUNK:
        probs = functional.pad(probs, (0, -vocab % CHUNK))
    chunks = probs.reshape(len(probs), probs.shape[-1] // CHUNK, CHUNK)  # [N,C,512]
    sums = chunks.sum(-1, dtype=torch.float64)  # [N,C]
    ends = _masked_cumsum(sums)
    target = (ends.amax(-1) * u)[:, None]  # [N,1], below the largest end because u < 1
    above = ends > target
    chunk = _first(above)  # [N]
    base = ends.masked_fill_(above, 0.0).amax(-1, keepdim=True)  # mass before the chunk, [N,1]
    inside = chunks[torch.arange(len(chunk), device=chunk.device), chunk].double()  # [N,512]
    ends = _masked_cumsum(inside).add_(base)
    # Rounding may leave the whole chunk below the target: then the token that reaches its end.
    target = torch.minimum(target, ends.amax(-1, keepdim=True) * _BELOW_ONE)
    return chunk * CHUNK + _first(ends > target)


def _wrap(value: int) -> int:
    """`value` modulo 2^64 as a signed int64."""
    return (value + 2**63) % 2**64 - 2**63


def _xorshift_(bits: Tensor, shift: int) -> Tensor:
    """bits ^= bits >>> shift, in place; the mask turns the arithmetic shift into a logical one."""
    return bits.bitwise_xor_((bits >> shift).bitwise_and_(2 ** (64 - shift) - 1))


def _masked_cumsum(mass: Tensor) -> Tensor:
    """Cumulative sum along the last axis; -inf where there is no mass, as parallel scans drift."""
    return mass.cumsum(-1).masked_fill_(mass <= 0, float("-inf"))


def _first(flags: Tensor) -> Tensor:
    """Index of the first True along the last axis, 0 if there is none."""
    return flags.to(torch.uint8).argmax(-1)
