"""What the bundled checkpoints are trained for: to fill masks, block by block, or to go on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from bundled_data import EOS, MASK, Batch
from torch import Tensor

from dlm.model.spec import ModelSpec


class Lesson(NamedTuple):
    """Input of the network and the wanted output.

    seen: ids that the network sees, `[B, S]`
    positions: `[S]` (None: in order)
    mask: True where a token may look, `[S, S]` (None: everywhere)
    scored: positions with a wanted id, `[B, S]`
    target: the wanted ids, `[B, S]`
    weight: of each position in the loss, `[B, S]`
    masked: scored positions that hide their token, `[B, S]`
    count: response tokens of the batch
    tokens: all tokens of the batch
    """

    seen: Tensor
    positions: Tensor | None
    mask: Tensor | None
    scored: Tensor
    target: Tensor
    weight: Tensor
    masked: Tensor
    count: Tensor
    tokens: int

    def to(self, device: torch.device) -> Lesson:
        """The same on a device, copied while the host goes on."""
        moved = (x.to(device, non_blocking=True) if isinstance(x, Tensor) else x for x in self)
        return Lesson(*moved)


def lesson(
    spec: ModelSpec, batch: Batch, generator: torch.Generator, *, plain: bool = False
) -> Lesson:
    """The lesson that suits a shape. `plain`: without what only training needs."""
    if spec.attention == "causal":
        return go_on(batch)
    if spec.attention == "block_causal":
        assert spec.block_length is not None
        return fill_blocks(batch, generator, spec.block_length)
    shares = (0.0, 0.0) if plain else (0.4, 0.2)
    return fill(batch, generator, *shares)


def fill(batch: Batch, generator: torch.Generator, block_share: float, edit_share: float) -> Lesson:
    """Mask the response of each row at its own level t, stratified over the batch.

    The weight of a masked position is 1/t, the bound of masked diffusion (LLaDA, arXiv 2502.09992,
    eq. 3), times its `importance`. `block_share` of the rows are seen as in block decoding: the
    answer clean up to a random position, a window of 4 to 24 masked at t, all masked after it
    (weight 1, t being 1 there). In `edit_share` of the rows a tenth of the visible response tokens
    are swapped for others of the batch and all visible ones are scored, so that rules that revise
    tokens read trained probabilities.
    """
    ids = batch.ids
    rows, length = ids.shape

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    position = torch.arange(length)[None]
    start = batch.prompt_lengths[:, None]
    response = position >= start
    order = torch.randperm(rows, generator=generator)
    level = (order + uniform(1)) / rows * 0.99 + 0.01
    level = level[:, None]  # [B, 1], from 0.01 to 1
    masked = response & (uniform(rows, length) < level)
    weight = (1 / level).expand(rows, length)

    blockwise = uniform(rows, 1) < block_share
    window = start + (uniform(rows, 1) * (length - start)).long()
    window_end = window + torch.randint(4, 25, (rows, 1), generator=generator)
    suffix = position >= window_end
    masked_in_block = (masked & (position >= window)) | suffix
    masked = torch.where(blockwise, masked_in_block, masked)
    weight = torch.where(blockwise & suffix, 1.0, weight)

    visible = response & ~masked & (uniform(rows, 1) < edit_share)
    swapped = visible & (uniform(rows, length) < 0.1)
    pool = ids[response]
    others = pool[torch.randint(len(pool), (rows, length), generator=generator)]
    seen = torch.where(swapped, others, ids).masked_fill(masked, MASK)
    weight = torch.where(visible, 0.5, weight) * importance(ids, response)
    scored = masked | visible
    return Lesson(seen, None, None, scored, ids, weight, masked, response.sum(), ids.numel())


def importance(ids: Tensor, response: Tensor) -> Tensor:
    """What the tokens of a response count `[B, L]`, their mean over the batch being 1.

    A token counts by one over the root of the length of its answer: between tokens that count the
    same and answers that do. The tail of ends after an answer counts a tenth, as it is all alike.
    """
    ends = (ids == EOS) & response
    tail = ends & (ends.cumsum(dim=1) > 1)
    answer = (response & ~tail).sum(dim=1, keepdim=True)
    weight = torch.where(tail, 0.1, 1.0) * response * answer.float().rsqrt()
    return weight / weight.sum() * response.sum()


def fill_blocks(batch: Batch, generator: torch.Generator, block: int) -> Lesson:
    """Mask each block of each row at its own level t, given the clean blocks before it.

    The input holds a row twice: noised, then clean. A noised token sees its own noised block and
    the clean ones before it, a clean token the clean blocks up to its own (block diffusion, arXiv
    2503.09573, section 3.1), so that one pass trains every block.
    """
    ids = batch.ids
    rows, length = ids.shape
    at = torch.arange(length)
    number = torch.div(at, block, rounding_mode="floor")
    response = at[None] >= batch.prompt_lengths[:, None]
    levels = torch.rand(rows, int(number[-1]) + 1, generator=generator) * 0.95 + 0.05
    level = levels[:, number]  # [B, L]
    masked = response & (torch.rand(rows, length, generator=generator) < level)
    noised = ids.masked_fill(masked, MASK)
    own, before = number[:, None] == number[None, :], number[:, None] > number[None, :]
    nowhere = torch.zeros_like(own)
    mask = torch.cat((torch.cat((own, before), 1), torch.cat((nowhere, own | before), 1)))
    twice = torch.zeros_like(masked)
    scored = torch.cat((masked, twice), dim=1)
    return Lesson(
        seen=torch.cat((noised, ids), dim=1),
        positions=torch.cat((at, at)),
        mask=mask,
        scored=scored,
        target=torch.cat((ids, ids), dim=1),
        weight=torch.cat((importance(ids, response) / level, torch.zeros_like(level)), dim=1),
        masked=scored,
        count=response.sum(),
        tokens=ids.numel(),
    )


def go_on(batch: Batch) -> Lesson:
    """Predict each token of the response up to its first end from all before it."""
    ids = batch.ids
    length = ids.shape[1]
    at = torch.arange(length)
    response = at[None] >= batch.prompt_lengths[:, None]
    ended = ((ids == EOS) & response).cumsum(dim=1)
    wanted = response & (ended - (ids == EOS).long() <= 0)
    scored = torch.cat((wanted[:, 1:], torch.zeros_like(wanted[:, :1])), dim=1)
    target = torch.cat((ids[:, 1:], ids[:, :1]), dim=1)
    weight = torch.ones_like(ids, dtype=torch.float32)
    mask = at[:, None] >= at[None, :]
    return Lesson(ids, None, mask, scored, target, weight, scored, wanted.sum(), ids.numel())
