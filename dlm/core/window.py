"""Which positions a step shows, and where their logits are."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Window(NamedTuple):
    """Which positions a step shows: the geometry of a frame, fixed as long as the plan is.

    pos `[R, W]` ascending, the spare column where `valid` is False · scored `[R, W]`: has logits ·
    must_progress `[R, W]`: scored and in a block that must progress · logit_row `[R, W]` row of
    the logits
    (0 where not scored) · block `[R, W]` column of the block table that holds the position; what
    earlier blocks left open belongs to the first live block. slot `[N]`: flat place in `[R, W]` of
    each row of the logits · shadow `[S]`: the same for the logits of shadow tokens, which follow ·
    row `[N + S]`: the row of each · written `[T]`: flat canvas places whose keys the forward
    stores · live `[R, 8]`: the blocks that are being denoised.
    """

    pos: Tensor
    valid: Tensor
    scored: Tensor
    must_progress: Tensor
    logit_row: Tensor
    block: Tensor
    slot: Tensor
    shadow: Tensor
    row: Tensor
    written: Tensor
    live: Tensor
