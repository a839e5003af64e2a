"""AdaBlock: blocks that end where a semantic step ends (arXiv 2509.26432)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from dlm.core import BlockTable, ModelInfo, Rows, StepView, is_one_of
from dlm.errors import InvalidRequest
from dlm.unmasking.blocks.fixed import InOrder


@dataclass(frozen=True, slots=True)
class AdaBlock(InOrder):
    """End the block after the most confident delimiter of the window, else after `length` positions
    (AdaBlock-dLLM, arXiv 2509.26432).

    The opening step's own logits decide (Algorithm 1): among the first `window` (a share of the
    whole generation length) positions whose most likely token is a delimiter, the most confident
    one closes the block if it reaches `threshold`. `delimiters`: token ids; None takes the ids
    whose text contains a newline. `min_length` keeps a block from being a single delimiter.
    """

    tier = "T1"

    length: int = 32
    window: float = 0.25
    threshold: float = 0.3
    delimiters: tuple[int, ...] | None = None
    min_length: int = 1

    def __post_init__(self) -> None:
        if self.length < 1 or self.min_length < 1:
            raise InvalidRequest(
                "blocks",
                "`length` and `min_length` must be at least 1, "
                f"got {self.length} and {self.min_length}",
            )
        if not 0 < self.window <= 1:
            raise InvalidRequest("blocks", f"`window` must be in (0, 1], got {self.window}")
        if not 0 <= self.threshold <= 1:
            raise InvalidRequest("blocks", f"`threshold` must be in [0, 1], got {self.threshold}")

    @property
    def tier_as_set(self) -> str:
        """T1 for what its reference was recorded with."""
        return "T1" if self.min_length == 1 else "T2"

    def bind(self, info: ModelInfo) -> Self:
        """Raises `InvalidRequest` on block-causal models, where no delimiter is known, and for one
        that no answer can have.
        """
        if info.attention == "block_causal":
            raise InvalidRequest(
                "blocks",
                "'adaptive' varies the block end; this model has trained blocks of "
                f"{info.block_length}",
            )
        delimiters = info.delimiters if self.delimiters is None else self.delimiters
        if not delimiters:
            raise InvalidRequest(
                "blocks", "'adaptive' needs `delimiters`: the tokenizer offers none with a newline"
            )
        info.check_answer_ids("blocks: delimiters", delimiters)
        return replace(self, delimiters=tuple(delimiters))

    def max_end(self, rows: Rows, params: Any) -> Tensor:
        """The window, or the default or least length where that is longer."""
        window = (params.window * (rows.host.length - rows.host.prompt)[:, None]).long()
        size: Tensor = window.maximum(params.length).maximum(params.min_length)[:, 0]
        return rows.host.next_unopened + size

    def block_end(self, view: StepView) -> Tensor:
        """Behind the most confident delimiter of the window, if it is confident enough."""
        params, start = view.params, _last_start(view.blocks)
        window = (params.window * (view.row.length - view.row.prompt)[:, None]).long()
        offset = view.pos - start[:, None]
        assert self.delimiters is not None
        found = (
            view.eligible
            & (offset >= 0)
            & (offset < window)
            & is_one_of(view.token, self.delimiters)
        )
        confidence = torch.where(found, view.confidence, torch.full_like(view.confidence, -1.0))
        best = confidence.argmax(dim=1, keepdim=True)
        sure = confidence.gather(1, best) >= params.threshold
        size = torch.where(
            sure, (offset.gather(1, best) + 1).maximum(params.min_length), params.length
        )[:, 0]
        return torch.minimum(start + size, view.row.length)


def _last_start(blocks: BlockTable) -> Tensor:
    """`[R]`: start of the block whose end is largest."""
    return blocks.start.gather(1, blocks.end.argmax(dim=1, keepdim=True))[:, 0]
