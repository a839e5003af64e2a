"""Operations on single logits: bias and forbidden ids."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from dlm.core import Frame, Guide, ModelInfo
from dlm.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Bias(Guide):
    """Add `bias` to the logits of ids: pairs (id, number), as OpenAI's `logit_bias`."""

    tier = "T2"

    pairs: tuple[tuple[int, float], ...]

    def bind(self, info: ModelInfo) -> Self:
        """Raises `InvalidRequest` for ids that no answer can have, and for none."""
        if not self.pairs:
            raise InvalidRequest("guide", "`pairs` must hold at least one (id, number)")
        info.check_answer_ids("guide", (token for token, _ in self.pairs))
        return self

    def __call__(self, logits: Tensor, frame: Frame, params: Any) -> Tensor:
        """`[arms, N, V]` -> the same shape."""
        ids, bias = params.pairs.unbind(1)
        wide = bias.to(logits.dtype).expand(*logits.shape[:2], -1)
        biased: Tensor = logits.index_add(2, ids.long(), wide)
        return biased


@dataclass(frozen=True, slots=True)
class Forbid(Guide):
    """Never produce these ids: their logits become -inf.

    `"eos"` is all of the model's end ids, `"end_of_text"` its `eos_token_id` alone, the first of
    them: LLaDA's `logits_eos_inf`, which lets an answer end with its turn. `before`: only among so
    many first positions of the answer, as no answer ends inside a hole.
    """

    tier = "T1"

    ids: tuple[int, ...] | str = "eos"
    before: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.ids, str) and self.ids not in ("eos", "end_of_text"):
            raise InvalidRequest(
                "guide", f"`ids` must be 'eos', 'end_of_text' or a tuple of ids, got {self.ids!r}"
            )
        if self.before is not None and self.before < 1:
            raise InvalidRequest("guide", f"`before` must be at least 1, got {self.before}")

    def bind(self, info: ModelInfo) -> Self:
        """Resolve a name to the model's end ids.

        Raises `InvalidRequest` for ids that no answer can have, for none, and when nothing would be
        left.
        """
        ends = {"eos": info.eos_ids, "end_of_text": info.eos_ids[:1]}
        ids = ends[self.ids] if isinstance(self.ids, str) else tuple(self.ids)
        left = set(range(info.vocab_size)) - {info.mask_id, *ids}
        if not ids or not left:
            raise InvalidRequest(
                "guide", f"`ids` must name some of the vocabulary but not all of it, got {len(ids)}"
            )
        info.check_answer_ids("guide", ids)
        return replace(self, ids=ids)

    def __call__(self, logits: Tensor, frame: Frame, params: Any) -> Tensor:
        """`[arms, N, V]` -> the same shape."""
        forbidden: Tensor = logits.index_fill(2, params.ids, -torch.inf)
        if self.before is None:
            return forbidden
        window, row = frame.window, frame.window.row
        pos = window.pos.take(torch.cat((window.slot, window.shadow)))
        here = pos - frame.row.prompt.take(row) < params.before[:, 0].take(row)
        return torch.where(here[:, None], forbidden, logits)
