"""One request of a causal engine: its tokens, its events, and why it ended."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dlm.core import Event, Kind
from dlm.engine.generation import Generation, Stats
from dlm.engine.watching import TextWatch
from dlm.errors import not_finite

if TYPE_CHECKING:
    from dlm.engine.causal import CausalConfig, CausalEngine


class CausalRow:
    """A prompt that is being continued, with the face of `dlm.Request`.

    Its events are those of the diffusion engine: the canvas opens with room for `max_new_tokens`
    ids, every forward commits the next one, and what no stop string can take away settles.
    """

    def __init__(self, engine: CausalEngine, prompt: Sequence[int], config: CausalConfig) -> None:
        self.engine, self.prompt, self.config = engine, tuple(prompt), config
        self.answer: list[int] = []
        self.reason: str | None = None
        self.error: Exception | None = None
        self._sure: list[float] = []
        self._computed = self._forwards = self._settled = 0
        self._begun = self._seconds = 0.0
        self._pages: list[int] = []
        self._events: deque[Event] | None = deque()
        self._shown: str | None = None
        self._watch: TextWatch | None = None
        if engine.text is not None and config.stop:
            self._watch = TextWatch(engine.text, config.stop)

    @property
    def length(self) -> int:
        """Positions of the whole canvas."""
        return len(self.prompt) + self.config.max_new_tokens

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.reason is not None

    def advance(self) -> None:
        """Commit one token, or end."""
        if self.done:
            return
        if not self._forwards:
            self._start()
        try:
            ids = [*self.prompt, *self.answer]
            token, c = self.engine.next_token(
                ids, self._computed, self._pages, self.config, self.length
            )
        except Exception as error:
            return self._end("error", error)
        self._computed, self._forwards = len(ids), self._forwards + 1
        if math.isnan(c):
            return self._end("error", not_finite(f" in step {self._forwards}"))
        self._take(token, c)

    def events(self) -> Iterator[Event]:
        """The events as they happen; `done` carries the answer.

        Raises the error of a row that fails, after its last event.
        """
        while True:
            done = self.done
            for event in self.pending():
                ended = event.type == "done" and self.error is None
                yield replace(event, result=self.result()) if ended else event
            if done:
                if self.error is not None:
                    raise self.error
                return
            self.engine.step()

    def pending(self) -> Iterator[Event]:
        """The events that nobody has taken yet, without waiting for more."""
        while self._events:
            yield self._events.popleft()

    def ignore_events(self) -> None:
        """Nobody will read the events: do not keep them."""
        self._events = None

    def abort(self) -> None:
        """End it and free its memory; what there is remains its result."""
        self._end("abort")

    def wait(self) -> None:
        """Advance the engine until the row has ended."""
        while not self.done:
            self.engine.step()

    def result(self) -> Generation:
        """Wait, and return the answer. Raises the error of a row that has failed."""
        self.wait()
        if self.error is not None:
            raise self.error
        text, answer = self.engine.text, list(self.answer)
        shown = None if text is None else text.decode(answer)
        if text is not None and self._shown is not None:
            shown = self._shown
            while answer and len(text.decode(answer[:-1])) >= len(shown):
                answer.pop()
        purposes = {"prefill step": min(self._forwards, 1), "step": max(self._forwards - 1, 0)}
        return Generation(
            text=shown,
            ids=tuple(answer),
            finish_reason=str(self.reason),
            stats=Stats(
                self._forwards, len(answer), self._computed, 0, 0, purposes, {}, {}, self._seconds
            ),
            prompt_ids=self.prompt,
            canvas=(*self.prompt, *self.answer),
            logprobs=tuple(math.log(max(c, 1e-45)) for c in self._sure[: len(answer)]),
        )

    def _start(self) -> None:
        """Take pages and open the canvas."""
        count, room = len(self.prompt), self.config.max_new_tokens
        self._begun, pages = time.perf_counter(), self.engine.kv.pages
        self._pages = pages.reserve(pages.pages_for(self.length))
        kinds = [int(Kind.PROMPT)] * count + [int(Kind.MASK)] * room
        data = {"prompt": count, "settled": count, "kinds": kinds}
        self._emit(Event("open", 0, 0, ids=(*self.prompt, *([0] * room)), data=data))

    def _take(self, token: int, c: float) -> None:
        """Commit a drawn token; end with an end id, a stop string or the last one."""
        if token in self.engine.eos_ids:
            return self._end("stop")
        self.answer.append(token)
        self._sure.append(c)
        at = len(self.prompt) + len(self.answer) - 1
        self._emit(Event("commit", 0, self._forwards, (at,), (token,), (c,)))
        if self._watch is not None and self._watch([token], final=False):
            return self._end("stop")
        if len(self.answer) == self.config.max_new_tokens:
            return self._end("length")
        self._settle(len(self.answer) if self._watch is None else self._watch.clear)

    def _settle(self, count: int) -> None:
        """The first `count` ids of the answer will not change."""
        if count > self._settled:
            self._settled = count
            self._emit(Event("settle", 0, self._forwards, (len(self.prompt) + count,)))

    def _end(self, reason: str, error: Exception | None = None) -> None:
        """End it once: settle what is there, free the pages."""
        if self.done:
            return
        clear = len(self.answer)
        if self._watch is not None:
            if self._watch((), final=True):
                reason, self._shown = ("stop" if reason == "length" else reason), self._watch.text
            clear = self._watch.clear
        if error is None:
            self._settle(clear)
        self.reason, self.error = reason, error
        if self._begun:
            self._seconds = time.perf_counter() - self._begun
        self.engine.kv.pages.release(self._pages)
        self._pages = []
        self._emit(Event("done", 0, self._forwards, data={"reason": reason}))

    def _emit(self, event: Event) -> None:
        if self._events is not None:
            self._events.append(event)
