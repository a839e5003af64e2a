"""`ModelInfo`: what decoding may know of a model and its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Traits a part may bind to.

    `attention` is the pattern the model was trained with; `block_length` its trained block
    (block-causal models); `shift`: row i of the raw output predicts position i + 1 (adapted
    autoregressive models). `eos_ids` end an answer; `delimiters` are ids whose text contains a
    newline.
    """

    family: str
    vocab_size: int
    mask_id: int
    eos_ids: tuple[int, ...]
    pad_id: int
    max_length: int
    attention: Literal["full", "block_causal", "causal"] = "full"
    block_length: int | None = None
    shift: bool = False
    delimiters: tuple[int, ...] = ()

    @property
    def alignment(self) -> int:
        """Blocks of this model start at multiples of it, counted from the canvas start (1 =
        anywhere).
        """
        return self.block_length or 1 if self.attention == "block_causal" else 1
