"""From logits to the view that rules read: one draw and one set of statistics for each position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from dlm.core import (
    STATISTICS,
    AuxView,
    Branches,
    Frame,
    Kind,
    LastCommit,
    RowInfo,
    Rows,
    SamplingStats,
    Statistics,
    StepView,
    Window,
)
from dlm.decode.group import RowGroup
from dlm.decode.sampling import RowStats, draw_tokens, row_stats, sampling_stats, token_uniforms
from dlm.decode.window import Planned

NO_AUX: Final[Mapping[str, AuxView]] = MappingProxyType({})


def build_frame(rows: Rows, planned: Planned) -> Frame:
    """Build the part of the view that is known before the logits are read."""
    pos = planned.window.pos
    ids, kind = rows.ids.gather(1, pos), rows.kind.gather(1, pos)
    return Frame(planned.window, ids, kind, planned.row, rows.blocks, rows.kind, rows.scratch)


def row_info(rows: Rows) -> RowInfo:
    """The numbers of each row that a rule may know."""
    return RowInfo(
        rows.prompt,
        rows.length,
        rows.limit,
        rows.initial_masks,
        rows.step,
        rows.seed,
        rows.path,
    )


def read_together(
    plans: Sequence[Planned], logits: Tensor, sizes: Sequence[int], mask_id: int | None
) -> list[RowStats | None]:
    """Read the statistics of groups side by side, as far as they need the same, in one call.

    `logits [N, V]` of all groups, of each as many rows as `sizes` tells; None for a group whose
    logits a guide changes, or whose statistics depend on more than them.
    """
    found: list[RowStats | None] = []
    start, needs = 0, [planned.joint_needs for planned in plans]
    for own, members in groupby(zip(needs, sizes, strict=True), key=itemgetter(0)):
        counts = [size for _, size in members]
        part = logits[start : start + sum(counts)]
        start += len(part)
        if own is None:
            found += [None] * len(counts)
        else:
            found += row_stats(part, mask_id, own).split(counts)
    return found


def build_view(
    group: RowGroup, logits: Tensor, known: RowStats | None, frame: Frame, mask_id: int | None
) -> StepView:
    """Draw a token for every scored position and read the statistics that the parts need.

    logits: those of the predicted positions, then those of shadow tokens, `[N + S, V]`
    known: their statistics, where these were read together with those of other groups
    """
    rows, window = group.rows, frame.window
    is_open = frame.kind >= Kind.MASK
    if group.active is not group.everyone:
        is_open = is_open & group.active[:, None]
    eligible = is_open if window.dense else is_open & window.scored
    all_must = window.must_progress is window.scored
    own, shadows = logits, None
    if window.has_shadows:
        own, shadows = logits.split((len(window.slot), len(window.shadow)))
    read, stats = _read(group, own, known, frame, mask_id)
    branches = None
    if shadows is not None and window.branches:
        branches = branches_of(shadows, logits, read.logsumexp, window, mask_id)
    elif shadows is not None:
        stats = stats._replace(prob_current=_through_shadows(stats.prob_current, shadows, frame))
    return StepView(
        window=window,
        ids=frame.ids,
        kind=frame.kind,
        row=frame.row,
        blocks=frame.blocks,
        eligible=eligible,
        must_progress=eligible if all_must else is_open & window.must_progress,
        token=_spread(read.token, window),
        confidence=_spread(read.confidence, window),
        stats=stats,
        last=LastCommit(rows, window.pos),
        params=None,
        scratch=rows.scratch,
        aux=NO_AUX,
        logits=read.logits,
        mask_id=mask_id,
        branches=branches,
    )


def _spread(values: Tensor, window: Window) -> Tensor:
    """A statistic `[N]` of the logits at the columns that show them, `[R, W]`."""
    return values.view_as(window.pos) if window.dense else values.take(window.logit_row)


def _read(
    group: RowGroup, logits: Tensor, known: RowStats | None, frame: Frame, mask_id: int | None
) -> tuple[RowStats, Statistics]:
    """Draw a token from each of the logits, and read the statistics that the parts need."""
    window, needs = frame.window, group.shared.needs
    current = frame.ids.take(window.slot) if "prob_current" in needs else None
    read = known or row_stats(logits, mask_id, needs, current)
    if group.sampler is not None:
        row = frame.row
        u = token_uniforms(row.seed, row.path, window.pos, row.step).take(window.slot)
        read = draw_tokens(read, mask_id, group.sampler, window.row[: len(window.slot)], u)
    drawn = None if read.drawn is None else _spread(read.drawn, window)
    stats = Statistics(read.logsumexp, drawn)
    if needs:
        names = needs & STATISTICS - {"sampling"}
        found = {name: _spread(getattr(read, name), window) for name in names}
        stats = Statistics(read.logsumexp, drawn, sampling=None, **found)
    if "sampling" in needs:
        stats = stats._replace(sampling=_sampling(group, read, window, mask_id))
    return read, stats


def _sampling(
    group: RowGroup, stats: RowStats, window: Window, mask_id: int | None
) -> SamplingStats:
    """The statistics of the distributions that tokens are drawn from."""
    row = window.row[: len(window.slot)]
    found = sampling_stats(stats, mask_id, group.sampler, row)
    return SamplingStats(*(_spread(values, window) for values in found))


def branches_of(
    shadows: Tensor, logits: Tensor, logsumexp: Tensor, window: Window, mask_id: int | None
) -> Branches:
    """The most likely token of each of the window's shadows `[S, V]` by its branch.

    logits: of the canvas itself and then of the shadows, `[N + S, V]`
    logsumexp: of the canvas itself, `[N]`
    """
    read = row_stats(shadows, mask_id, frozenset())
    rows, width = window.pos.shape
    row, column = torch.div(window.shadow, width, rounding_mode="floor"), window.shadow % width
    at = (row * window.branches + window.branch - 1) * width + column
    place = torch.arange(len(logsumexp), len(logits), device=logits.device)

    def spread(values: Tensor) -> Tensor:
        flat = values.new_zeros(rows * window.branches * width).put(at, values)
        return flat.view(rows, window.branches, width)

    return Branches(
        token=spread(read.token),
        confidence=spread(read.confidence),
        scored=spread(torch.ones_like(at, dtype=torch.bool)),
        logit_row=spread(place),
        logits=logits,
        logsumexp=torch.cat((logsumexp, read.logsumexp)),
    )


def _through_shadows(prob_current: Tensor | None, logits: Tensor, frame: Frame) -> Tensor:
    """`prob_current [R, W]`, where a shadow token looks as it sees it: `logits [S, V]`."""
    slot = frame.window.shadow
    seen = torch.log_softmax(logits, dim=1).gather(1, frame.ids.take(slot)[:, None])[:, 0].exp()
    own = seen.new_full(frame.ids.shape, torch.nan) if prob_current is None else prob_current
    return own.put(slot, seen)
