"""Rotary position embeddings: half-split RoPE (arXiv 2104.09864) and its scaled kinds.

The frequencies of scaled kinds are those of transformers' `ROPE_INIT_FUNCTIONS`. In some kinds they
depend on the length of the text. That is the whole canvas, known when a row is admitted, so that
stored keys and later queries are turned by the same table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

if TYPE_CHECKING:
    from dlm.model.spec import ModelSpec

BY_LENGTH: Final = ("dynamic", "longrope")
"""Kinds whose frequencies depend on the length of the text."""


@dataclass(frozen=True, slots=True)
class RotaryScaling:
    """A scaled kind of RoPE, with the numbers that transformers' function for it takes.

    `kind`: its name in `ROPE_INIT_FUNCTIONS`.
    `settings`: names and values, as in `rope_parameters`, without the base.
    `max_positions`: `max_position_embeddings` of the files, which some kinds scale by.
    """

    kind: str
    settings: tuple[tuple[str, Any], ...]
    max_positions: int

    @property
    def by_length(self) -> bool:
        """True if the frequencies depend on the length of the canvas."""
        return self.kind in BY_LENGTH

    @property
    def original_length(self) -> int:
        """The length up to which the model was trained before it was scaled."""
        return int(dict(self.settings).get("original_max_position_embeddings", self.max_positions))


@dataclass(slots=True)
class Rotary:
    """The cosines and sines of one model.

    Frequencies are made once for each device. The latest tables are kept with the tensors that they
    were made from, as the steps of one plan come with the same tensors.
    """

    spec: ModelSpec
    _made: dict[torch.device, tuple[Tensor, float]] = field(default_factory=dict)
    _latest: tuple[Tensor, Tensor | None, tuple[Tensor, Tensor]] | None = None

    def tables(self, positions: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines `[T, 1, rotary_dim]` in float32 at `positions [T]`.

        `lengths [T]`: the length of the canvas that each position belongs to, for the kinds that
        depend on it. The sine's first half is negated, so that a rotation is
        `x * cos + swap_halves(x) * signed_sin`. Neither argument may be changed in place later.
        """
        latest = self._latest
        if latest is not None and latest[0] is positions and latest[1] is lengths:
            return latest[2]
        frequencies, scale = self._frequencies(positions.device, lengths)  # [(T or 1,) dim / 2]
        angles = positions.float()[:, None, None] * frequencies.unsqueeze(-2)
        cos, sin = angles.cos(), angles.sin()
        if scale != 1.0:
            cos, sin = cos * scale, sin * scale
        tables = torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
        self._latest = positions, lengths, tables
        return tables

    def _frequencies(self, device: torch.device, lengths: Tensor | None) -> tuple[Tensor, float]:
        """Frequencies `[dim / 2]`, or `[T, dim / 2]` for the kinds that depend on `lengths`, and
        the factor of cosines and sines.
        """
        scaling = self.spec.rotary_scaling
        if scaling is not None and scaling.by_length:
            assert lengths is not None, "these rotary tables depend on the length of the canvas"
            return self._by_length(scaling, lengths)
        if device not in self._made:
            with torch.inference_mode(False):
                self._made[device] = (
                    (self._plain(device), 1.0) if scaling is None else self._scaled(scaling, device)
                )
        return self._made[device]

    def _plain(self, device: torch.device) -> Tensor:
        """`[dim / 2]`: powers of the base."""
        dim = self.spec.rotary_dim or self.spec.head_dim
        exponents = torch.arange(0, dim, 2, device=device, dtype=torch.float32) / dim
        frequencies: Tensor = self.spec.rope_theta**-exponents
        return frequencies

    def _by_length(self, scaling: RotaryScaling, lengths: Tensor) -> tuple[Tensor, float]:
        """`[T, dim / 2]` for canvases of `lengths [T]`."""
        if scaling.kind == "dynamic":
            return self._scaled(scaling, lengths.device, lengths[:, None])
        original = scaling.original_length
        short, scale = self._scaled(scaling, lengths.device, original)
        long, _ = self._scaled(scaling, lengths.device, original + 1)
        return torch.where((lengths > original)[:, None], long, short), scale

    def _scaled(
        self, scaling: RotaryScaling, device: torch.device, length: Any = None
    ) -> tuple[Tensor, float]:
        """Frequencies and factor by transformers' function, for texts of `length`."""
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        spec = self.spec
        settings = dict(scaling.settings) | {"rope_theta": spec.rope_theta}
        if scaling.kind != "proportional" and spec.rotary_dim is not None:
            settings["partial_rotary_factor"] = spec.rotary_dim / spec.head_dim
        config: Any = SimpleNamespace(  # the attributes of a config that these functions read
            rope_parameters=settings,
            head_dim=spec.head_dim,
            hidden_size=spec.hidden_size,
            num_attention_heads=spec.heads,
            max_position_embeddings=scaling.max_positions,
            standardize_rope_params=lambda: None,
        )
        found, scale = ROPE_INIT_FUNCTIONS[scaling.kind](config, device, seq_len=length)
        return found.float(), float(scale)
