"""Certainty of the tokens that a row's last step drew."""

from __future__ import annotations

from collections.abc import Collection
from math import fsum, isnan

from dlm.engine.generation import Generation


def draft_logs(draft: Generation, positions: Collection[int]) -> dict[int, float]:
    """Log-probabilities of a filled answer at some positions of its canvas, before its end."""
    first = len(draft.prompt_ids)
    known = {at: log for at, log in enumerate(draft.logprobs, first) if not isnan(log)}
    return {at: known[at] for at in positions if at in known}


def doubt(draft: Generation, positions: Collection[int]) -> float:
    """The mean of `-log p` of the tokens at some positions: an estimate of their mean entropy.

    It is that of the whole answer where none of them lies in it.
    """
    logs = draft_logs(draft, positions).values()
    logs = logs or draft_logs(draft, range(len(draft.canvas))).values()
    return -fsum(logs) / len(logs) if logs else 0.0
