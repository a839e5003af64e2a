"""Streamers in the manner of transformers: objects with `put`, `end` and perhaps `put_draft`.

`TextStreamer`, `TextIteratorStreamer` and `TextDiffusionStreamer` of transformers work as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from dlm.core import Kind
from dlm.engine.generation import answer_of
from dlm.engine.request import Request


class Streamer(Protocol):
    """Takes ids `[n]` on the CPU: the prompt's first, then the answer's as they settle."""

    def put(self, value: Tensor) -> None:
        """Ids that will not change any more."""
        ...

    def end(self) -> None:
        """Nothing follows."""
        ...


def feed(streamer: Streamer, request: Request) -> None:
    """Drive a request of one choice to its end and tell the streamer.

    `put_draft`, where there is one, gets what stands behind the settled ids after each step, open
    positions left out. A last token that a stop string cuts is put as the ids of the text before
    it, or left out where that text has no such ids.
    """
    (ticket,) = request.tickets
    draft = getattr(streamer, "put_draft", None)
    sent, step = 0, 0
    streamer.put(_ids(ticket.prompt))
    try:
        for event in request.events():
            canvas = ticket.canvas
            if event.type == "settle":
                answer, _ = answer_of(canvas, min(event.pos[0], ticket.limit), ticket.end_ids)
                sent = _put(streamer, answer, sent)
            elif draft is not None and event.step > step:
                step = event.step
                open_end = canvas.ids[canvas.prompt + sent : ticket.limit]
                kinds = canvas.kinds[canvas.prompt + sent :]
                filled = zip(open_end, kinds, strict=False)
                draft(_ids([token for token, kind in filled if kind <= Kind.COMMITTED]))
        _put(streamer, request.shown_ids(), sent)
    finally:
        streamer.end()


def _put(streamer: Streamer, answer: Sequence[int], sent: int) -> int:
    """Put what is new of an answer; how much has been sent."""
    if len(answer) > sent:
        streamer.put(_ids(answer[sent:]))
    return max(sent, len(answer))


def _ids(values: Sequence[int]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.long)
