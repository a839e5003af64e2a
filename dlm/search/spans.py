"""From places in the text of an answer to positions of its canvas."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Final

from dlm.engine.generation import Generation
from dlm.text import Text

Span = tuple[int, int]
BROKEN: Final = "\ufffd"
"""Stands for bytes that are a part of a character."""


class Places:
    """The places of an answer's text on its canvas.

    Positions are those of tokens: a token that spells the character before the first one as well
    is part of a span.
    """

    def __init__(self, answer: Generation, text: Text) -> None:
        self._answer, self._first = answer, len(answer.prompt_ids)
        whole = text.decode(answer.ids) == answer.text
        self._decode = text.decode if whole else text.decode_inside

    def span(self, start: int, end: int) -> Span:
        """The positions of the characters from `start` to before `end`, at least one."""
        first = self._token(start)
        last = bisect_left(range(len(self._answer.ids) + 1), end, lo=first, key=self._length)
        return self._on_canvas(first, max(last, first + 1))

    def rest(self, start: int) -> Span:
        """The positions from the character `start` to the end of the canvas, the end id and all
        that follows it included: an answer that is too short needs them.
        """
        return self._on_canvas(self._token(start), len(self._answer.canvas))

    def _token(self, start: int) -> int:
        """The number of the first token that spells the character `start`, or a part of it."""
        counts = range(len(self._answer.ids) + 1)
        whole = bisect_left(counts, start, key=self._length)
        return max(min(whole, bisect_right(counts, start, key=self._length) - 1), 0)

    def _on_canvas(self, first: int, last: int) -> Span:
        """The positions of tokens, as far as the canvas goes."""
        return self._first + first, min(self._first + last, len(self._answer.canvas))

    def _length(self, count: int) -> int:
        """Characters that the first `count` ids spell in full."""
        return len(self._decode(self._answer.ids[:count]).rstrip(BROKEN))


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Spans in order, those that touch made one; empty ones left out."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        elif start < end:
            found.append((start, end))
    return tuple(found)
