"""Looking for stop strings in the settled text."""

from __future__ import annotations

from collections.abc import Sequence

from dlm.text import IncrementalDecoder, StopMatcher, Text


class TextWatch:
    """Sees the ids of an answer that will not change any more, and says where its text must end.

    `clear`: how many of them may be shown: those whose text is complete and stands before every
    stop string, also before one that has only begun. `inside`: as for `IncrementalDecoder`.
    """

    def __init__(self, text: Text, strings: Sequence[str], *, inside: bool = False) -> None:
        self._decoder = IncrementalDecoder(text, inside=inside)
        self._matcher, self._inside = StopMatcher(strings), inside
        self._text, self._strings, self._seen = text, strings, list[int]()
        self._ends: list[int | None] = []  # where the text of each id ends; None: not complete
        self._released = self.clear = 0

    @property
    def text(self) -> str | None:
        """The text before the first stop string, once one is complete."""
        cut = self._matcher.cut
        return None if cut is None else self._matcher.text[:cut]

    def __call__(self, ids: Sequence[int], *, final: bool) -> bool:
        """Take newly settled ids of the answer; whether a stop string is complete."""
        for token in ids:
            self._seen.append(token)
            self._matcher.feed(self._decoder.feed([token]))
            self._ends.append(None if self._decoder.holds else len(self._matcher.text))
        if final:
            self._matcher.feed(self._decoder.finish())
        self._released += len(self._matcher.release(final=final))
        self._advance(final=final)
        return self._matcher.cut is not None

    def _advance(self, *, final: bool) -> None:
        """Move `clear` on, up to the last id whose text ends within what may be shown."""
        if final and self._matcher.cut is None:
            self.clear = len(self._seen)
            return
        for count in range(self.clear + 1, len(self._ends) + 1):
            end = self._ends[count - 1]
            if end is not None and end > self._released:
                return
            if end is not None:
                self.clear = count

    def fork(self) -> TextWatch:
        """A watch that has seen the same ids."""
        twin = TextWatch(self._text, self._strings, inside=self._inside)
        twin(self._seen, final=False)
        return twin
