"""Logits of whole batches, without cache or decoding: what scoring and checks read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlm.errors import InvalidRequest, not_finite
from dlm.model.decoder import Decoder


def dense_logits(
    model: Decoder, ids: Any, attention_mask: Any, where: Any, *, shift: bool
) -> Tensor:
    """`ids [B, L]` -> float32 `logits [B, L, V]`, or `[N, V]` of the positions in `where [B, L]`.

    Each row's tokens are computed as if its padding were not there: positions and the grid of
    trained blocks begin at its first token. Logits at padding are zero. `shift`: the raw row i
    predicts position i + 1, so that a row's first logits stand for its first two positions.

    Raises `InvalidRequest` for wrong shapes, ids and masks, `CheckpointError` where logits are not
    finite.
    """
    device = model.embedding.weight.device
    canvas = _matrix("ids", ids, device)
    _check_ids(canvas, model.spec.vocab_size)
    real = torch.ones_like(canvas, dtype=torch.bool)
    if attention_mask is not None:
        real = _flags("attention_mask", attention_mask, canvas)
        _check_gaps(real)
    with torch.inference_mode():
        hidden = _hidden(model, canvas, real, shift=shift)
        if where is not None:
            hidden = hidden[_flags("where", where, canvas)]
        out: Tensor = model.head(hidden).float()
        if not bool(out.isfinite().all()):
            raise not_finite()
    return out


def visibility(model: Decoder, length: int, device: torch.device) -> Tensor:
    """`[L, L]` bool: the keys that each query may see under the model's attention pattern."""
    spec = model.spec
    if spec.attention == "full":
        return torch.ones(length, length, dtype=torch.bool, device=device)
    blocked = spec.attention == "block_causal" and spec.block_length is not None
    at = torch.arange(length, device=device)
    block = torch.div(at, (spec.block_length or 1) if blocked else 1, rounding_mode="floor")
    return block[:, None] >= block[None, :]


def _hidden(model: Decoder, canvas: Tensor, real: Tensor, *, shift: bool) -> Tensor:
    """Normed hidden states `[B, L, D]` that predict each position; zero at padding.

    The real tokens `real [B, L]` of each row are moved to its front and their results back.
    """
    counts = real.sum(dim=1)  # [B]
    longest = int(counts.max()) if len(counts) else 0
    order = (~real).int().argsort(dim=1, stable=True)[:, :longest]  # [B, longest]
    front = torch.arange(longest, device=canvas.device) < counts[:, None]
    seen = visibility(model, longest, canvas.device) & front[:, None, None, :]
    seen = seen | (counts == 0)[:, None, None, None]  # a row of padding sees it: no empty softmax
    hidden = model.dense(canvas.gather(1, order), seen, lengths=counts)
    if shift:
        hidden = torch.cat((hidden[:, :1], hidden[:, :-1]), dim=1)
    out = hidden.new_zeros(*canvas.shape, hidden.shape[-1])
    out[real] = hidden[front]
    return out


def _check_ids(ids: Tensor, size: int) -> None:
    """Raises `InvalidRequest` for the first id outside the vocabulary."""
    outside = ids[(ids < 0) | (ids >= size)]
    if len(outside):
        raise InvalidRequest("ids", f"ids must be between 0 and {size - 1}, got {int(outside[0])}")


def _check_gaps(real: Tensor) -> None:
    """Raises `InvalidRequest` for padding between the tokens of a row."""
    edges = real.int().diff(dim=1)
    starts = (edges == 1).sum(dim=1) + real[:, :1].sum(dim=1)
    gaps = (starts > 1).nonzero()
    if len(gaps):
        row = int(gaps[0])
        raise InvalidRequest(
            "attention_mask",
            f"padding may stand before and after a row's tokens, not between them, as in row {row}",
        )


def _flags(name: str, values: Any, like: Tensor) -> Tensor:
    """`values` as booleans `[B, L]`; only zeros and ones count as such."""
    matrix = _matrix(name, values, like.device, tuple(like.shape))
    if bool(((matrix != 0) & (matrix != 1)).any()):
        raise InvalidRequest(name, "must hold 0 and 1 alone")
    return matrix.bool()


def _matrix(
    name: str, values: Any, device: torch.device, shape: tuple[int, ...] | None = None
) -> Tensor:
    """`values` as whole numbers `[B, L]` on `device`; `shape`: what it must be."""
    try:
        given = torch.as_tensor(values, device=device)
        matrix = given.long()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InvalidRequest(name, f"must be numbers of shape [B, L]: {error}") from error
    if matrix.dim() != 2 or (shape is not None and tuple(matrix.shape) != shape):
        wanted = "[B, L]" if shape is None else str(list(shape))
        raise InvalidRequest(name, f"must have shape {wanted}, got {list(matrix.shape)}")
    if bool((matrix != given).any()):
        raise InvalidRequest(name, "must hold whole numbers, got fractions")
    return matrix
