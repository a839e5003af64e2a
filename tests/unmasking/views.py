"""Hand-made views: what a rule would see of a step, from plain lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from dlm.core import (
    BlockTable,
    Kind,
    LastCommit,
    Level,
    ModelInfo,
    Phase,
    RowInfo,
    Statistics,
    StepView,
    Window,
)

MASK = 63
INFO = ModelInfo("llada", 64, MASK, eos_ids=(1, 2), pad_id=0, max_length=512, delimiters=(10, 11))


def part_params(parts: Sequence[Any]) -> SimpleNamespace:
    """The plain numbers of one part a row, stacked to `[R, 1]`."""
    numbers = {
        f.name: [getattr(part, f.name) for part in parts]
        for f in fields(parts[0])
        if isinstance(getattr(parts[0], f.name), int | float)
    }
    dtypes = {n: torch.float64 if isinstance(v[0], float) else None for n, v in numbers.items()}
    columns = {n: torch.tensor(v, dtype=dtypes[n])[:, None] for n, v in numbers.items()}
    return SimpleNamespace(**columns)


def table_of(start: Tensor, end: Tensor, step: Tensor, masks: Tensor, phase: Phase) -> BlockTable:
    """One live block in each row."""
    table = BlockTable.empty(len(start))
    for name, value in (("start", start), ("end", end), ("step", step), ("masks", masks)):
        getattr(table, name)[:, 0] = value
    table.phase[:, 0], table.level[:, 0] = phase, Level.FULL
    return table


def make_view(
    parts: Any,
    c: Sequence[Sequence[float]],
    *,
    token: Any = 5,
    ids: Any = MASK,
    kind: Any = Kind.MASK,
    pos: Any = None,
    start: Any = None,
    end: Any = None,
    prompt: Any = 0,
    length: Any = None,
    step: Any = 0,
    masks: Any = None,
    row_step: Any = 0,
    seed: Any = 0,
    path: Any = 0,
    conf_prev: Any = float("nan"),
    entropy: Any = 0.0,
    margin: Any = 0.0,
    opening: bool = False,
) -> StepView:
    """A view `[R, W]` of R rows with one block each. `parts`: the rule that is called, or one a row
    for their numbers. Every argument is a number for all, or a list a row; `pos` defaults to the
    first W positions, the block and the canvas to what these span. Open positions before `end`
    are eligible.
    """
    rows, width = len(c), len(c[0])

    def wide(value: Any, dtype: torch.dtype = torch.long) -> Tensor:
        return torch.as_tensor(value, dtype=dtype).expand(rows, width).clone()

    def tall(value: Any) -> Tensor:
        return torch.as_tensor(value, dtype=torch.long).expand(rows).clone()

    kinds = wide(kind, torch.int8)
    places = wide(torch.arange(width) if pos is None else pos)
    ends = places[:, -1] + 1 if end is None else tall(end)
    lengths = ends.clone() if length is None else tall(length)
    starts = places[:, 0] if start is None else tall(start)
    is_open = kinds >= Kind.MASK
    pinned = (kinds == Kind.PROMPT) & (places >= tall(prompt)[:, None])
    eligible = is_open & (places < ends[:, None])
    inside = (kinds != Kind.PROMPT) & (places < ends[:, None])
    totals = inside.sum(dim=1) if masks is None else tall(masks)
    phase = Phase.OPENING if opening else Phase.OPEN
    window = Window(
        pos=places,
        spare=places.amax() + 1,
        columns=torch.arange(width),
        valid=torch.ones(rows, width, dtype=torch.bool),
        scored=is_open,
        must_progress=is_open,
        inside=places < ends[:, None],
        logit_row=torch.zeros_like(places),
        block=torch.zeros_like(places),
        slot=torch.arange(rows * width),
        shadow=torch.empty(0, dtype=torch.long),
        row=torch.arange(rows * width) // width,
        branch=torch.empty(0, dtype=torch.long),
        written=torch.empty(0, dtype=torch.long),
        live=torch.arange(8).expand(rows, 8) == 0,
    )
    return StepView(
        window=window,
        ids=wide(ids),
        kind=kinds,
        row=RowInfo(
            prompt=tall(prompt),
            length=lengths,
            limit=lengths,
            initial_masks=lengths - tall(prompt) - pinned.sum(dim=1),
            step=tall(row_step),
            seed=tall(seed),
            path=tall(path),
        ),
        blocks=table_of(starts, ends, tall(step), totals, phase),
        eligible=eligible,
        must_progress=eligible,
        token=wide(token),
        confidence=torch.tensor(c, dtype=torch.float32),
        stats=Statistics(
            torch.empty(0),
            argmax=wide(token),
            entropy=wide(entropy, torch.float32),
            margin=wide(margin, torch.float32),
        ),
        last=LastCommit(
            SimpleNamespace(  # whose canvases are the window
                conf=wide(conf_prev, torch.float32),
                born=torch.full((rows, width), -1),
                edits=torch.zeros((rows, width), dtype=torch.long),
            ),
            torch.arange(width).expand(rows, width),
        ),
        params=part_params(parts if isinstance(parts, list) else [parts] * rows),
        scratch={},
        aux={},
        logits=torch.empty(0, INFO.vocab_size),
        mask_id=MASK,
    )
