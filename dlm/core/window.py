"""`Window`: the positions that a step shows, and the places of their logits."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Window(NamedTuple):
    """The positions that a step shows: the geometry of a frame, fixed as long as the plan is.

    pos: positions, ascending, `[R, W]`; the spare column where `valid` is False.
    spare: the spare column of the canvases, a number.
    columns: the numbers of the columns, `[W]`.
    valid: columns that show a position, `[R, W]`.
    scored: positions with logits, `[R, W]`.
    must_progress: scored positions of a block that must progress, `[R, W]`; the very tensor
        `scored` where these are all.
    inside: positions before the end of their block, `[R, W]`.
    logit_row: row of the logits of each position (0 where not scored), `[R, W]`.
    block: column of the block table that holds the position, `[R, W]`; positions that earlier
        blocks left open belong to the first live block.
    slot: flat place in `[R, W]` of each row of the logits, `[N]`.
    shadow: the same for the logits of shadow tokens, which follow, `[S]`.
    row: the row of each of both, `[N + S]`.
    branch: the branch of each of the shadows, `[S]` (0: none).
    written: flat canvas places whose keys the forward stores, `[T]`.
    live: the blocks that are being denoised, `[R, 8]`.
    dense: every column has logits, and the rows of the logits are the columns, one after the other.
    one_block: no row has more than one live block.
    has_shadows: there are shadow tokens.
    branches: the largest number of a branch among them.
    """

    pos: Tensor
    spare: Tensor
    columns: Tensor
    valid: Tensor
    scored: Tensor
    must_progress: Tensor
    inside: Tensor
    logit_row: Tensor
    block: Tensor
    slot: Tensor
    shadow: Tensor
    row: Tensor
    branch: Tensor
    written: Tensor
    live: Tensor
    dense: bool = False
    one_block: bool = False
    has_shadows: bool = False
    branches: int = 0
