"""Hand-made frames: what a guide sees of a step, from plain lists."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from dlm.core import Frame, Guide
from dlm.decode.group import constants_of
from tests.unmasking.views import make_view, part_params

ROWS, WIDTH = 2, 3


def frame_of(guide: Guide, kind: Any, canvas_kind: Any = None, **options: Any) -> Frame:
    """A frame of two rows of three positions that all have logits, and the spare column."""
    view = make_view(guide, [[0.5] * WIDTH] * ROWS, kind=kind, **options)
    whole = torch.cat((view.kind, view.kind[:, :1] * 0), dim=1)
    if canvas_kind is not None:
        whole = torch.tensor(canvas_kind, dtype=torch.int8)
    scratch = {spec.name: spec.tensor(whole) for spec in guide.scratch}
    return Frame(view.window, view.ids, view.kind, view.row, view.blocks, whole, scratch)


def called(guide: Guide, logits: Tensor, frame: Frame) -> Any:
    """The answer of a guide to `logits [N, V]`."""
    params = SimpleNamespace(**vars(part_params([guide] * ROWS)), **constants_of(guide))
    return guide(logits[None], frame, params)
