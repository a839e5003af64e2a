"""From logits to the view that rules read: one draw and one set of statistics for each position."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from dlm.core import (
    AuxView,
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

NO_AUX: Final[Mapping[str, AuxView]] = MappingProxyType({})


def build_frame(group: RowGroup) -> Frame:
    """Build the part of the view that is known before the logits are read."""
    rows, window = group.rows, group.current.window
    return Frame(
        window,
        rows.ids.gather(1, window.pos),
        rows.kind.gather(1, window.pos),
        row_info(rows),
        rows.blocks,
    )


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


def last_commit(rows: Rows, pos: Tensor) -> LastCommit:
    """The last commit of the positions `pos [R, W]`."""
    return LastCommit(rows.conf.gather(1, pos), rows.born.gather(1, pos), rows.edits.gather(1, pos))


def build_view(group: RowGroup, logits: Tensor, frame: Frame, mask_id: int | None) -> StepView:
    """Draw a token for every scored position and read the statistics that the parts need.

    `logits [N + S, V]`: those of the predicted positions, then those of shadow tokens.
    """
    rows, window = group.rows, frame.window
    logits, shadows = logits.split((len(window.slot), len(window.shadow)))
    read = _read(group, logits, frame, mask_id)
    is_open = (frame.kind >= Kind.MASK) & group.active[:, None]
    at = window.logit_row
    return StepView(
        *frame,
        eligible=is_open & window.scored,
        must_progress=is_open & window.must_progress,
        token=read.token.take(at),
        confidence=read.confidence.take(at),
        stats=Statistics(
            read.logsumexp,
            argmax=_spread(read.argmax, at),
            entropy=_spread(read.entropy, at),
            margin=_spread(read.margin, at),
            logit_margin=_spread(read.logit_margin, at),
            prob_current=_through_shadows(_spread(read.prob_current, at), shadows, frame),
            sampling=_sampling(group, read, window, mask_id),
        ),
        last=last_commit(rows, window.pos),
        params=None,
        scratch=rows.scratch,
        aux=NO_AUX,
        logits=read.logits,
        mask_id=mask_id,
    )


def _spread(values: Tensor | None, logit_row: Tensor) -> Tensor | None:
    """A statistic `[N]` of the logits at the columns `[R, W]` that show them."""
    return None if values is None else values.take(logit_row)


def _read(group: RowGroup, logits: Tensor, frame: Frame, mask_id: int | None) -> RowStats:
    """Draw a token from each of the logits `[N, V]`; the statistics that the parts need."""
    rows, window, needs = group.rows, frame.window, group.needs
    current = frame.ids.take(window.slot) if "prob_current" in needs else None
    stats = row_stats(logits, mask_id, needs, current)
    if group.sampler is None:
        return stats
    u = token_uniforms(rows.seed, rows.path, window.pos, rows.step).take(window.slot)
    return draw_tokens(stats, mask_id, group.sampler, window.row[: len(window.slot)], u)


def _sampling(
    group: RowGroup, stats: RowStats, window: Window, mask_id: int | None
) -> SamplingStats | None:
    """The statistics of what tokens are drawn from, where a part needs them."""
    if "sampling" not in group.needs:
        return None
    row = window.row[: len(window.slot)]
    found = sampling_stats(stats, mask_id, group.sampler, row)
    return SamplingStats(*(s.take(window.logit_row) for s in found))


def _through_shadows(prob_current: Tensor | None, logits: Tensor, frame: Frame) -> Tensor | None:
    """`prob_current [R, W]`, where a shadow token looks as it sees it: `logits [S, V]`."""
    slot = frame.window.shadow
    if len(slot) == 0:
        return prob_current
    seen = torch.log_softmax(logits, dim=1).gather(1, frame.ids.take(slot)[:, None])[:, 0].exp()
    own = seen.new_full(frame.ids.shape, torch.nan) if prob_current is None else prob_current
    return own.put(slot, seen)
