"""From logits to the view that rules read: one draw and one set of statistics for each position."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from dlm.core import AuxView, Frame, Kind, SamplingStats, StepView, Window
from dlm.decode.group import RowGroup
from dlm.decode.sampling import RowStats, draw_tokens, row_stats, sampling_stats, token_uniforms

NO_AUX: Final[Mapping[str, AuxView]] = MappingProxyType({})


def build_frame(group: RowGroup) -> Frame:
    """What the step shows before its logits are read."""
    rows, window = group.rows, group.current.window
    return Frame(
        window,
        rows.ids.gather(1, window.pos),
        rows.kind.gather(1, window.pos),
        rows.prompt,
        rows.step,
        rows.blocks,
    )


def build_view(group: RowGroup, logits: Tensor, frame: Frame, mask_id: int | None) -> StepView:
    """Draw a token for every scored position and read the statistics that the parts need.

    `logits [N + S, V]`: those of the predicted positions, then those of shadow tokens.
    """
    rows, window = group.rows, frame.window
    logits, shadows = logits.split((len(window.slot), len(window.shadow)))
    stats = _read(group, logits, frame, mask_id)
    token, c, best, entropy, margin, logit_margin, prob_current = (
        None if s is None else s.take(window.logit_row) for s in stats[:7]
    )
    assert token is not None
    assert c is not None
    is_open = (frame.kind >= Kind.MASK) & group.active[:, None]
    return StepView(
        *frame,
        eligible=is_open & window.scored,
        must_progress=is_open & window.full,
        token=token,
        confidence=c,
        argmax=best,
        entropy=entropy,
        margin=margin,
        logit_margin=logit_margin,
        prob_current=_through_shadows(prob_current, shadows, frame),
        sampling=_sampling(group, stats, window, mask_id),
        logits=stats.logits,
        logsumexp=stats.logsumexp,
        mask_id=mask_id,
        conf_prev=rows.conf.gather(1, window.pos),
        born=rows.born.gather(1, window.pos),
        length=rows.length,
        limit=rows.limit,
        initial_masks=rows.initial_masks,
        seed=rows.seed,
        path=rows.path,
        scratch=rows.scratch,
        aux=NO_AUX,
        params=None,
    )


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
    if "tempered" not in group.needs:
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
