"""Operations on single logits: bias, forbidden ids and allowed ones."""

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

    def forbids(self, at: int) -> frozenset[int]:
        """Its ids, among the first positions."""
        here = self.before is None or at < self.before
        return frozenset(self.ids) if here and not isinstance(self.ids, str) else frozenset()

    def __call__(self, logits: Tensor, frame: Frame, params: Any) -> Tensor:
        """`[arms, N, V]` -> the same shape."""
        forbidden: Tensor = logits.index_fill(2, params.ids, -torch.inf)
        if self.before is None:
            return forbidden
        here = _answer_positions(frame) < params.before[:, 0].take(frame.window.row)
        return torch.where(here[:, None], forbidden, logits)


@dataclass(frozen=True, slots=True)
class Allow(Guide):
    """Produce these ids alone: the logits of all others become -inf.

    `ends`: the model's end ids are allowed beside them. `at`: only at these positions of the
    answer, counted from 0 (None: everywhere). Several of these guides allow what all of them do.
    """

    tier = "T2"

    ids: tuple[int, ...]
    at: tuple[int, ...] | None = None
    ends: bool = False

    def __post_init__(self) -> None:
        if self.at is not None and (not self.at or min(self.at) < 0):
            raise InvalidRequest(
                "guide", f"`at` must hold positions of the answer from 0 on, got {self.at}"
            )

    def bind(self, info: ModelInfo) -> Self:
        """Add the end ids, if they are asked for.

        Raises `InvalidRequest` for ids that no answer can have, and for none.
        """
        if not self.ids:
            raise InvalidRequest("guide", "`ids` must hold at least one id")
        info.check_answer_ids("guide", self.ids)
        ids = dict.fromkeys((*self.ids, *(info.eos_ids if self.ends else ())))
        return replace(self, ids=tuple(ids))

    def allows(self, at: int) -> frozenset[int] | None:
        """Its ids, where it says something."""
        return frozenset(self.ids) if self.at is None or at in self.at else None

    def __call__(self, logits: Tensor, frame: Frame, params: Any) -> Tensor:
        """`[arms, N, V]` -> the same shape."""
        kept = logits.index_select(2, params.ids)
        alone = torch.full_like(logits, -torch.inf).index_copy_(2, params.ids, kept)
        if self.at is None:
            return alone
        here = (_answer_positions(frame)[:, None] == params.at).any(dim=1)
        return torch.where(here[:, None], alone, logits)


def _answer_positions(frame: Frame) -> Tensor:
    """The position in its answer of each row of the logits, shadow tokens last, `[N]`."""
    window = frame.window
    pos = window.pos.take(torch.cat((window.slot, window.shadow)))
    return pos - frame.row.prompt.take(window.row)
