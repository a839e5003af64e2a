"""Refreshes, periods and frozen prompts, which policies for models with full attention share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Self

from dlm.cache.geometry import RowBounds, RowPolicy
from dlm.core import NO_POSITIONS, HostRows, ModelInfo, Segment, SharedPrefix, span
from dlm.errors import InvalidRequest

Prompt = bool | int
"""How a prompt's keys are made: with the canvas, again and again (False); once and alone (True); or
alone in chunks of this many positions, each of which sees those before it.
"""


class Bidirectional(RowPolicy):
    """A policy that reuses keys which theory does not allow: approximate.

    reused: the keys that it reuses, and their age, in words
    frozen_prompt: the prompt's keys see nothing after it and are never made again, so that requests
        can share them (True: those with the same prompt; chunks: those that begin alike)
    """

    __slots__ = ()

    reused: str
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
    def stale(self) -> str:
        """The age of the reused keys, and the view of a frozen prompt's."""
        if self.frozen_prompt is False:
            return self.reused
        end = "it" if self.frozen_prompt is True else "their chunk"
        return f"{self.reused}; the prompt's keys see nothing after {end}"

    @property
    def shared_prefix(self) -> SharedPrefix | None:
        """The prompt, when its keys are made alone."""
        frozen = self.frozen_prompt
        if frozen is False:
            return None
        return SharedPrefix(f"alone {frozen}", None if frozen is True else frozen, prompt_only=True)

    def with_prompts(self, host: HostRows, segments: Sequence[Segment]) -> Sequence[Segment]:
        """The segments; with a frozen prompt its keys are made alone, once."""
        frozen = self.frozen_prompt
        if frozen is False:
            return segments
        alone = _prompt_alone(host, None if frozen is True else frozen)
        return [*alone, *_behind_prompt(host, segments, shift=self.shift)]


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


def refresh_due(b: RowBounds, every: int | None) -> bool:
    """True if all keys are computed now: where a block opens, and at the period inside it."""
    return b.opening or (every is not None and b.age % every == 0)


def steps_until_refresh(b: RowBounds, every: int | None) -> int | None:
    """The steps after which the plan of a policy with a period is another one."""
    if every is None:
        return None
    return 1 if refresh_due(b, every) else every - b.age % every


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
