"""Reading the tokens of a row again: their log-probabilities under what stands around them now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from dlm.engine.admission import opened_ids
from dlm.engine.node import Holder, Node, require_rest


class Reader(Holder, Protocol):
    """An engine that gives the logits of any canvas."""

    def logits(self, ids: Tensor) -> Tensor:
        """`ids [B, L]` -> `logits [B, L, V]`: row i predicts position i."""
        ...


def reread(engine: Reader, node: Node, hidden: Sequence[int] = ()) -> tuple[float, ...]:
    """Log-probability of each token of a canvas, at temperature 1 over all ids, by position.

    One forward of the model without guidance, with `hidden` positions masked; tokens that are not
    hidden are seen by the positions that predict them. The row stays as it is.
    """
    require_rest(node)
    ids = torch.tensor([node.ids])
    seen = ids.clone()
    if hidden:
        seen[0, list(hidden)] = torch.tensor(opened_ids(node._state, hidden, engine.info))
    logs = torch.log_softmax(engine.logits(seen)[0], dim=-1).cpu()  # [L, V]
    return tuple(logs.gather(1, ids[0, :, None])[:, 0].tolist())
