"""`ModelInfo`: the traits of a model and its tokenizer that decoding may know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from dlm.core.process import Absorbing, Process, Uniform
from dlm.errors import InvalidRequest, shown


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Traits a part may bind to.

    family: name of the model family
    vocab_size: V
    mask_id: id of MASK; None for models of uniform diffusion, which have no mask
    eos_ids: ids that end an answer
    pad_id: id of padding
    max_length: positions of the longest canvas
    attention: the pattern that the model was trained with
    block_length: the trained block of block-causal models
    shift: row i of the raw output predicts position i + 1 (adapted autoregressive models)
    delimiters: ids whose text contains a newline
    aux: names of the auxiliary models that were loaded along
    references: the masked ones among them, which guides read; rules read the others
    symbols: ids whose text has a digit, an operator or a bracket
    """

    family: str
    vocab_size: int
    mask_id: int | None
    eos_ids: tuple[int, ...]
    pad_id: int
    max_length: int
    attention: Literal["full", "block_causal", "causal"] = "full"
    block_length: int | None = None
    shift: bool = False
    delimiters: tuple[int, ...] = ()
    aux: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    symbols: tuple[int, ...] = ()

    @property
    def process(self) -> Process:
        """The noising process that the model was trained with."""
        return Uniform(self.vocab_size) if self.mask_id is None else Absorbing(self.mask_id)

    @property
    def alignment(self) -> int:
        """Blocks of this model start at multiples of it, from the canvas start (1 = anywhere)."""
        return self.block_length or 1 if self.attention == "block_causal" else 1

    def check_ids(self, param: str, ids: Iterable[int]) -> None:
        """Raise `InvalidRequest` for the first of `ids` that is outside the vocabulary."""
        for token in ids:
            if not 0 <= token < self.vocab_size:
                raise InvalidRequest(
                    param, f"ids must be between 0 and {self.vocab_size - 1}, got {shown(token)}"
                )

    def check_answer_ids(self, param: str, ids: Iterable[int]) -> None:
        """Raise `InvalidRequest` for the first of `ids` that no answer can have: one outside the
        vocabulary, or the mask, which is never committed.
        """
        for token in ids:
            self.check_ids(param, (token,))
            if token == self.mask_id:
                raise InvalidRequest(
                    param, f"the id {token} is the mask, which is never part of an answer"
                )
