"""Autoregressive decoding: the row that diffusion models are compared with, one token a forward."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from dlm.config.causal import CausalConfig
from dlm.core import Event, ForwardPlan, Kind, ModelInfo, Segment, span
from dlm.decode.packing import pack
from dlm.decode.sampling import Sampler, draw_tokens, row_stats, token_uniforms
from dlm.engine.binding import prompt_ids
from dlm.engine.generation import Generation, log_of
from dlm.engine.request import Stream
from dlm.engine.stats import Stats
from dlm.errors import InvalidRequest, not_finite
from dlm.model.decoder import Decoder
from dlm.model.dense import dense_logits
from dlm.model.kv_store import KVPool
from dlm.text import Text
from dlm.text.prompts import Prompt, is_batch, plain
from dlm.text.stream import StopStringWatcher


class CausalEngine:
    """Continues prompts with a causal model, one request at a time, a token a forward.

    Keys and values are kept, so that a forward computes the prompt or one token. A draw is keyed by
    (seed, position) as in the diffusion engine. Prompts of a batch are answered one after the
    other. It has no rules, caches, infill, several choices (`n`) or traces. Not for several
    threads.
    """

    def __init__(
        self, model: Decoder, eos_ids: Sequence[int], text: Text | None = None, *, name: str = ""
    ) -> None:
        weight = model.embedding.weight
        self.model, self.eos_ids, self.text, self.name = model, tuple(eos_ids), text, name
        self.device, spec = weight.device, model.spec
        self.info = ModelInfo(
            spec.family, spec.vocab_size, None, self.eos_ids, 0, spec.max_length, "causal"
        )
        self.kv = KVPool(model.spec, device=weight.device, dtype=weight.dtype)
        self.queue: deque[CausalRow] = deque()

    def __setattr__(self, name: str, value: Any) -> None:
        """Attributes are set once. Raises `AttributeError` for another value."""
        if name in self.__dict__:
            raise AttributeError(f"`{name}` of an engine cannot be changed: load another engine")
        super().__setattr__(name, value)

    @overload
    def generate(self, prompt: Prompt, **options: Any) -> Generation: ...

    @overload
    def generate(self, prompt: Sequence[Prompt], **options: Any) -> list[Generation]: ...

    def generate(
        self, prompt: Prompt | Sequence[Prompt], **options: Any
    ) -> Generation | list[Generation]:
        """Answer one prompt (a `Generation`) or a list of them (a list, in order).

        `options` are the fields of `CausalConfig`. Raises `InvalidRequest` before any work starts,
        `CheckpointError` when logits are not finite.
        """
        asked = plain(prompt)
        batch = bool(asked) and is_batch(asked)
        config = CausalConfig.from_options(options)
        rows = [self._row(one, config) for one in (asked if batch else [asked])]
        self.queue.extend(rows)
        try:
            answers = [row.result() for row in rows]
        finally:
            for row in rows:
                row.abort()
        return answers if batch else answers[0]

    def submit(self, prompt: Prompt, **options: Any) -> CausalRow:
        """Queue one prompt. Options and errors as in `generate`."""
        row = self._row(prompt, CausalConfig.from_options(options))
        self.queue.append(row)
        return row

    def stream(self, prompt: Prompt, **options: Any) -> Stream:
        """The events of one answer as they happen; as `Engine.stream`."""
        row = self._row(prompt, CausalConfig.from_options(options))
        return Stream(row, self._stream(row))

    def _stream(self, row: CausalRow) -> Iterator[Event]:
        self.queue.append(row)
        try:
            yield from row.events()
        finally:
            row.abort()

    def step(self) -> None:
        """Advance the oldest queued row by one token."""
        while self.queue and self.queue[0].done:
            self.queue.popleft()
        if self.queue:
            with torch.inference_mode():
                self.queue[0].advance()

    def logits(self, ids: Any, attention_mask: Any = None, where: Any = None) -> Tensor:
        """`ids [B, L]` -> `logits [B, L, V]`: row i predicts position i; as `Engine.logits`."""
        return dense_logits(self.model, ids, attention_mask, where, shift=True)

    def next_token(self, row: CausalRow) -> tuple[int, float]:
        """Compute the new ids of a row, and draw the token after them, with its probability."""
        ids, config = [*row.prompt, *row.answer], row.config
        queries = span(row.computed, len(ids))
        here = span(len(ids), len(ids) + 1)  # the position that is drawn
        segment = Segment(0, 0, queries, queries + 1, write=True, predict=here)
        table, lengths = torch.tensor([[row.pages]]), np.array([row.length])
        plan = ForwardPlan((segment,), ("step",), table, len(ids) + 1, lengths=lengths)
        canvas = torch.tensor([[*ids, 0]], device=self.device)
        packed = pack([plan], self.kv.store, shift=True, device=self.device).read([canvas])
        stats = row_stats(self.model(packed, self.kv.store), None, frozenset())
        if config.temperature > 0:
            zero = torch.zeros(1, dtype=torch.long, device=self.device)
            u = token_uniforms(zero + config.seed, zero, zero[None] + len(ids), zero)[0]
            settings = (zero + config.temperature, zero + config.top_p, zero + config.top_k)
            filters = config.top_p < 1 or config.top_k > 0
            stats = draw_tokens(stats, None, Sampler(*settings, filters), zero, u)
        return int(stats.token[0]), float(stats.confidence[0])

    def _row(self, prompt: Prompt, config: CausalConfig) -> CausalRow:
        """A checked row that is not queued yet."""
        ids = prompt_ids(prompt, self.text, self.info)
        length = len(ids) + config.max_new_tokens
        if length > self.model.spec.max_length:
            raise InvalidRequest(
                "max_new_tokens",
                f"a prompt of {len(ids)} and {config.max_new_tokens} new tokens are {length}; the "
                f"limit of the model is {self.model.spec.max_length}",
            )
        if config.stop and self.text is None:
            raise InvalidRequest("stop", "a stop string needs a tokenizer, and this model has none")
        return CausalRow(self, ids, config)


class CausalRow:
    """A prompt that is being continued, with the face of `dlm.Request` but for `deltas`.

    Its events are those of the diffusion engine: the canvas opens with room for `max_new_tokens`
    ids, every forward commits the next one, and what no stop string can take away settles.
    """

    def __init__(self, engine: CausalEngine, prompt: Sequence[int], config: CausalConfig) -> None:
        self.engine, self.prompt, self.config = engine, tuple(prompt), config
        self.length = len(prompt) + config.max_new_tokens
        self.answer: list[int] = []
        self.reason: str | None = None
        self.error: Exception | None = None
        self._sure: list[float] = []
        self.computed = self._forwards = self._settled = 0
        self._begun = self._seconds = 0.0
        self.pages: list[int] = []
        self._events: deque[Event] | None = deque()
        self._shown: str | None = None
        self._watch: StopStringWatcher | None = None
        if engine.text is not None and config.stop:
            self._watch = StopStringWatcher(engine.text, config.stop)

    @property
    def done(self) -> bool:
        """True if it has ended."""
        return self.reason is not None

    def advance(self) -> None:
        """Commit one token, or end."""
        if self.done:
            return
        if not self._forwards:
            self._start()
        try:
            token, c = self.engine.next_token(self)
        except Exception as error:
            return self._end("error", error)
        self.computed, self._forwards = len(self.prompt) + len(self.answer), self._forwards + 1
        if np.isnan(c):
            return self._end("error", not_finite(f" in step {self._forwards}"))
        self._take(token, c)

    def events(self) -> Iterator[Event]:
        """The events as they happen; `done` carries the answer.

        Raises the error of a row that fails, after its last event.
        """
        done = False
        while not done:
            done = self.done
            for event in self.pending():
                ended = event.type == "done" and self.error is None
                yield replace(event, result=self.result()) if ended else event
            if not done:
                self.engine.step()
        if self.error is not None:
            raise self.error

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
        text, answer, shown = self.engine.text, list(self.answer), self._shown
        if text is not None and shown is None:
            shown = text.decode(answer)
        elif text is not None and shown is not None:
            while answer and len(text.decode(answer[:-1])) >= len(shown):
                answer.pop()
        purposes = {"prefill step": min(self._forwards, 1), "step": max(self._forwards - 1, 0)}
        return Generation(
            text=shown,
            ids=tuple(answer),
            finish_reason=str(self.reason),
            stats=Stats(
                self._forwards, len(answer), self.computed, 0, 0, purposes, {}, {}, self._seconds
            ),
            prompt_ids=self.prompt,
            canvas=(*self.prompt, *self.answer),
            logprobs=tuple(map(log_of, self._sure[: len(answer)])),
            commit_steps=tuple(range(1, len(answer) + 1)),
        )

    def _start(self) -> None:
        """Take pages and open the canvas."""
        count, room = len(self.prompt), self.config.max_new_tokens
        self._begun, pages = time.perf_counter(), self.engine.kv.pages
        self.pages = pages.reserve(pages.pages_for(self.length))
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
        self.engine.kv.pages.release(self.pages)
        self.pages = []
        self._emit(Event("done", 0, self._forwards, data={"reason": reason}))

    def _emit(self, event: Event) -> None:
        if self._events is not None:
            self._events.append(event)
