"""Refreshes, periods and frozen prompts, which policies for models with full attention share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from dlm.cache.geometry import RowBounds, bounds_of, make_plan
from dlm.core import (
    NO_POSITIONS,
    ForwardPlan,
    HostRows,
    Ints,
    ModelInfo,
    Rows,
    Segment,
    SharedPrefix,
    span,
)
from dlm.errors import InvalidRequest

Prompt = bool | int
"""How a prompt's keys are made: with the canvas, again and again (False); once and alone (True); or
alone in chunks of so many positions, each of which sees those before it.
"""


class Bidirectional:
    """A policy that reuses keys which theory does not allow: approximate.

    With `frozen_prompt` the prompt's keys see nothing behind it and are never made again, so that
    requests can share them (True: those with the same prompt; chunks: those that begin alike).
    """

    __slots__ = ()

    exact = False
    stores = False
    shift: bool
    frozen_prompt: Prompt

    def bind(self, info: ModelInfo) -> Self:
        """Raises `InvalidRequest` on block-causal models, whose blocks see no suffix."""
        if info.attention != "full":
            raise InvalidRequest(
                "cache",
                f"{type(self).__name__} reuses keys of both sides of a block and needs full "
                f"attention; this one is {info.attention} ({info.family}): use 'block_causal' or "
                "'none'",
            )
        policy: Any = self
        bound: Self = replace(policy, shift=info.shift)
        return bound

    @property
    def shared_prefix(self) -> SharedPrefix | None:
        """The prompt, when its keys are made alone."""
        frozen = self.frozen_prompt
        if frozen is False:
            return None
        return SharedPrefix(f"alone {frozen}", None if frozen is True else frozen, prompt_only=True)

    def build_plan(
        self,
        rows: Rows,
        segments: Sequence[Segment],
        purposes: Sequence[str],
        valid_steps: int | None = None,
    ) -> ForwardPlan:
        """A plan of the segments; with a frozen prompt without its queries."""
        if self.frozen_prompt is not False:
            chunk = None if self.frozen_prompt is True else self.frozen_prompt
            segments = [
                *_prompt_alone(rows.host, chunk),
                *_behind_prompt(rows.host, segments, shift=self.shift),
            ]
        return make_plan(rows, segments, purposes, valid_steps=valid_steps)


def _prompt_alone(host: HostRows, chunk: int | None) -> Iterator[Segment]:
    """Queries that make the keys of prompts which have none yet, chunk by chunk."""
    numbers = zip(host.prompt.tolist(), host.stored.tolist(), strict=True)
    for row, (prompt, stored) in enumerate(numbers):
        start = stored
        while start < prompt:
            end = prompt if chunk is None else min(start // chunk * chunk + chunk, prompt)
            yield Segment(row, 0, span(start, end), end, write=True, predict=NO_POSITIONS)
            start = end


def _behind_prompt(
    host: HostRows, segments: Sequence[Segment], *, shift: bool
) -> Iterator[Segment]:
    """The segments without the prompt's queries; a shifted family still looks from its last one."""
    prompts = host.prompt.tolist()
    for segment in segments:
        prompt = prompts[segment.row]
        own = segment.q_pos >= prompt
        if not segment.write or bool(own.all()):
            yield segment
            continue
        if bool(own.any()):
            yield segment._replace(q_pos=segment.q_pos[own])
        if shift and bool((segment.predict == prompt).any()):
            last = span(prompt - 1, prompt)
            yield segment._replace(q_pos=last, write=False, predict=NO_POSITIONS)


def refresh(b: RowBounds, left_over: Ints = NO_POSITIONS) -> Segment:
    """The whole canvas as queries; logits for what is left over and for the live blocks."""
    predict = np.concatenate((left_over, b.predicted))
    return Segment(b.row, 0, span(0, b.length), b.length, write=True, predict=predict)


def refresh_due(b: RowBounds, every: int | None) -> bool:
    """True if all keys are computed now: where a block opens, and at the period inside it."""
    return b.opening or (every is not None and b.age % every == 0)


def steps_until_refresh(rows: Rows, every: int | None) -> int | None:
    """After how many steps a plan is another one, for a policy with a period."""
    if every is None:
        return None
    return min(1 if refresh_due(b, every) else every - b.age % every for b in bounds_of(rows.host))


def require_period(name: str, steps: int | None) -> None:
    """Raise `InvalidRequest` unless a period is None or at least 1."""
    if steps is not None and steps < 1:
        raise InvalidRequest("cache", f"`{name}` must be None or at least 1, got {steps}")


def require_prompt(frozen: Prompt) -> None:
    """Raise `InvalidRequest` unless `frozen_prompt` is a truth value or the length of a chunk.

    A chunk of one would equal True, and rows of both would be taken for one policy.
    """
    if not isinstance(frozen, bool) and frozen < 2:
        raise InvalidRequest(
            "cache", f"`frozen_prompt` must be True, False or at least 2, got {frozen}"
        )
