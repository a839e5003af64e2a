"""Text that grows: deltas that never need taking back, and stop strings found in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dlm.errors import InvalidRequest
from dlm.text.text import Text

BROKEN = "\ufffd"  # what a decoder shows for the bytes of an unfinished character


class IncrementalDecoder:
    """Turns settled ids into text deltas; all deltas together are `text.decode` of all ids.

    A character whose bytes are not complete is held back until they are, or until `finish`.
    `inside`: the ids go on with a text, so that all deltas together are `text.decode_inside`.
    """

    def __init__(self, text: Text, *, inside: bool = False) -> None:
        self._decode = text.decode_inside if inside else text.decode
        self._skipped = text.special_ids()
        # Ids whose text is not all sent, after those sent last: a tokenizer may join two tokens
        # differently than it starts a text, so new ids are decoded together with older ones.
        self._ids: list[int] = []
        self._sent = 0

    def feed(self, ids: Iterable[int]) -> str:
        """The text that `ids` complete; nothing but an unfinished character is held back."""
        fresh, held = list(ids), len(self._ids)
        if delta := self._advance(fresh, final=False):
            return delta
        del self._ids[held:]  # they end within a character, and are read one by one up to it
        return "".join([self._advance([index], final=False) for index in fresh])

    @property
    def holds(self) -> bool:
        """True if ids are held back whose text is not complete."""
        return len(self._ids) > self._sent

    def finish(self) -> str:
        """The rest, with U+FFFD for a character that never became complete."""
        return self._advance((), final=True)

    def _advance(self, ids: Iterable[int], *, final: bool) -> str:
        self._ids += [index for index in ids if index not in self._skipped]
        before = self._decode(self._ids[: self._sent])
        after = self._decode(self._ids)
        whole = after if final else after.rstrip(BROKEN)
        if whole != after or len(after) <= len(before):
            return ""
        self._ids, self._sent = self._ids[self._sent :], len(self._ids) - self._sent
        return after[len(before) :]


class StopMatcher:
    """Finds stop strings in a growing text; what may be the start of one is held back.

    `text` is all that was fed. The match is the one that is complete first, so it does not depend
    on how the text is cut into deltas; `cut` is then where it begins and `matched` the stop string.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        if isinstance(stops, str) or not all(isinstance(stop, str) and stop for stop in stops):
            raise InvalidRequest("stop", f"must be a list of non-empty strings, got {stops!r}")
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._released = 0
        self.text = ""
        self.cut: int | None = None
        self.matched: str | None = None

    def feed(self, delta: str) -> int | None:
        """Take more text; the cut position once a stop string is complete. Ignored after that."""
        if self.cut is None:
            begin = max(0, len(self.text) - self._longest + 1)
            self.text += delta
            found = [(self.text.find(stop, begin), stop) for stop in self._stops]
            ends = [(at + len(stop), at, stop) for at, stop in found if at >= 0]
            if ends:
                _, self.cut, self.matched = min(ends)
        return self.cut

    def release(self, *, final: bool = False) -> str:
        """The text that may be shown and was not released before; `final`: nothing will follow."""
        end = self.cut
        if end is None:
            end = len(self.text) - (0 if final else self._possible())
        shown = self.text[self._released : end]
        self._released = end
        return shown

    def _possible(self) -> int:
        """The number of last characters that may begin a stop string."""
        for count in range(min(self._longest - 1, len(self.text)), 0, -1):
            if any(stop.startswith(self.text[-count:]) for stop in self._stops):
                return count
        return 0


class StopStringWatcher:
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

    def fork(self) -> StopStringWatcher:
        """A watch that has seen the same ids."""
        twin = self.fresh()
        twin(self._seen, final=False)
        return twin

    def fresh(self) -> StopStringWatcher:
        """A watch for the same stop strings that has seen nothing."""
        return StopStringWatcher(self._text, self._strings, inside=self._inside)
