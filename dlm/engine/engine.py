"""`Engine`: the object that users hold.

It turns prompts into requests, requests into events, and events into generations.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, overload

import torch
from torch import Tensor

from dlm.config import GenerationConfig
from dlm.config.checks import require_integer
from dlm.config.explain import Explanation, explain
from dlm.core import Event, ModelInfo
from dlm.decode.auxiliary import AuxiliaryModel
from dlm.decode.iteration import IterationManager
from dlm.decode.reference import Reference
from dlm.engine.admission import QueueLimit, in_order
from dlm.engine.binding import bind_request, prompt_ids
from dlm.engine.decisions.verbs import Deciding
from dlm.engine.generation import Generation
from dlm.engine.parking import Parking
from dlm.engine.request import Request, Stream, Streamer, feed
from dlm.engine.scheduler import Scheduler
from dlm.engine.scoring.verbs import Scoring
from dlm.engine.searching import Searching
from dlm.errors import Interrupted, InvalidRequest
from dlm.model.decoder import Decoder
from dlm.model.dense import dense_logits
from dlm.model.kv_store import KVPool
from dlm.text import Text
from dlm.text.prompts import Prompt, is_batch, plain


class Engine(Parking, Deciding, Scoring, Searching):
    """A model, its tokenizer and the decoding loop.

    Safe to use from several threads: whoever waits for a request drives the steps of all, one at a
    time.

    `max_rows` bounds the rows that are decoded at once, `max_waiting` those that wait beyond them
    (None: no bound; a submission beyond it raises `Unavailable`), `max_token_forwards` the
    positions of one forward (None: no bound; more take several), `kv_bytes` the key/value pool
    (None: as much as the rows need; on CUDA, where all of it is taken at once, half of the free
    memory), and likewise that of each auxiliary model in `aux`. `unroll`: steps between two looks
    of the host at the device. `prefix_bytes`: how much of that pool may keep what was computed, for
    requests that begin alike (0: nothing; block-causal models only, where it is exact).
    """

    def __init__(
        self,
        model: Decoder,
        info: ModelInfo,
        text: Text | None = None,
        *,
        max_rows: int = 32,
        max_waiting: int | None = None,
        max_token_forwards: int | None = None,
        kv_bytes: int | None = None,
        unroll: int = 1,
        prefix_bytes: int = 0,
        aux: Mapping[str, AuxiliaryModel] = MappingProxyType({}),
        name: str = "",
    ) -> None:
        require_integer("max_rows", max_rows, 1)
        require_integer("unroll", unroll, 1)
        require_integer("max_waiting", max_waiting, 0, optional=True)
        require_integer("max_token_forwards", max_token_forwards, 1, optional=True)
        require_integer("kv_bytes", kv_bytes, 0, optional=True)
        require_integer("prefix_bytes", prefix_bytes, 0)
        if prefix_bytes and model.spec.angles_by_length:
            assert model.spec.rotary_scaling is not None
            raise InvalidRequest(
                "prefix_bytes",
                f"must be 0: with {model.spec.rotary_scaling.kind!r} rotary angles, keys depend on "
                "the length of the canvas, and requests cannot share them",
            )
        weight = model.embedding.weight
        self.model, self.text, self.name = model, text, name
        masked = tuple(name for name, own in aux.items() if isinstance(own, Reference))
        self.info = replace(info, aux=tuple(aux), references=masked)
        self.kv = KVPool(model.spec, device=weight.device, dtype=weight.dtype, max_bytes=kv_bytes)
        self.manager = IterationManager(
            model, self.kv, self.info, weight.device, unroll, aux, prefix_bytes
        )
        self.scheduler = Scheduler(
            self.manager, max_rows=max_rows, max_token_forwards=max_token_forwards
        )
        self.lock, self._limit = threading.RLock(), QueueLimit(max_rows, max_waiting)

    def __setattr__(self, name: str, value: Any) -> None:
        """Attributes are set once, as other objects of the engine share them.

        Raises `AttributeError` for another value.
        """
        if name in self.__dict__:
            raise AttributeError(f"`{name}` of an engine cannot be changed: load another engine")
        super().__setattr__(name, value)

    def submit(self, prompt: Prompt, **options: Any) -> Request:
        """Queue one prompt; it advances whenever somebody waits for a request of this engine.

        `options` are the fields of `GenerationConfig`. Raises `InvalidRequest` before any work
        starts, `Unavailable` when the canvas cannot fit the key/value budget, or when the queue is
        full (`max_waiting`): then with `retry_after`, a guess in seconds of when there is room.
        """
        self.enqueue(request := self.prepare(prompt, GenerationConfig.from_options(options)))
        return request

    def prepare(self, prompt: Prompt, config: GenerationConfig, *, events: bool = True) -> Request:
        """A checked request that is not queued yet; `enqueue` does that. Errors as in `submit`.

        The work before decoding (tokenizing, binding parts) is done here, in any thread. `events`
        False: nobody will read them.
        """
        bound = bind_request(config, self.text, self.info)
        request = Request(self, prompt_ids(prompt, self.text, self.info, bound.pinned), bound)
        self.scheduler.check(request.states[0])
        if not events:
            request.ignore_events()
        return request

    def enqueue(self, *requests: Request) -> None:
        """Queue prepared requests, all or none, once; they advance whenever somebody waits.

        Raises `Unavailable` where the queue has no room.
        """
        states = [state for request in requests for state in request.states]
        self._limit.take(states)
        for state in states:
            self.scheduler.submit(state)

    @overload
    def generate(
        self, prompt: Prompt, *, streamer: Streamer | None = None, **options: Any
    ) -> Generation: ...

    @overload
    def generate(
        self, prompt: Sequence[Prompt], *, streamer: None = None, **options: Any
    ) -> list[Generation]: ...

    def generate(
        self, prompt: Prompt | Sequence[Prompt], *, streamer: Streamer | None = None, **options: Any
    ) -> Generation | list[Generation]:
        """Answer one prompt (a `Generation`) or a list of them (a list, in order, as one batch).

        With `search` (and `verifier`, `budget`, ...: see `search`) each answer is the best that a
        search finds. `streamer` sees the ids of one answer as they settle, as in transformers.
        `options` and errors as in `submit`; a row that fails raises its error here. `Interrupted`
        on Ctrl-C carries what there is so far.
        """
        asked = plain(prompt)
        batch = is_batch(asked)
        if options.get("search") is not None:
            if streamer is not None:
                raise InvalidRequest("streamer", "follows one row, got a search of many")
            return self._searched(asked if batch else [asked], options, batch=batch)
        config = GenerationConfig.from_options(options)
        if streamer is not None and (batch or config.n > 1):
            raise InvalidRequest("streamer", "follows one answer, got several prompts or n > 1")
        prompts = [plain(p, f"prompt[{i}]") for i, p in enumerate(asked)] if batch else [asked]
        requests = [self.prepare(p, config, events=streamer is not None) for p in prompts]
        self.enqueue(*requests)
        interrupt: KeyboardInterrupt | None = None
        try:
            if streamer is not None:
                feed(streamer, requests[0], self.text)
            for request in requests:
                request.wait()
        except KeyboardInterrupt as stop:
            interrupt = stop
        finally:
            for request in requests:
                request.abort()
        answers = [request.result() for request in requests]
        results = answers if batch else answers[0]
        if interrupt is not None:
            raise Interrupted(results) from interrupt
        return results

    def map(
        self, prompts: Iterable[Prompt], *, in_flight: int | None = None, **options: Any
    ) -> Iterator[Generation]:
        """Answer prompts from an iterable of any length, in its order, as they get ready.

        At most `in_flight` of them (default: twice `max_rows`) are held at a time, asked for or
        answered. Leaving the loop early aborts the rest. `options` and errors as in `generate`.
        """
        config = GenerationConfig.from_options(options)
        most = 2 * self.scheduler.max_rows if in_flight is None else in_flight
        require_integer("in_flight", most, 1)
        requests = (self.prepare(prompt, config, events=False) for prompt in prompts)
        return in_order(requests, self.enqueue, most)

    def stream(self, prompt: Prompt, **options: Any) -> Stream:
        """The events of one answer as they happen; the last one, `done`, carries the `Generation`
        as its `result`, which `Stream.result()` gives as well.

        What `settle` events have settled never changes, and none of it is taken away by a stop
        string. Leaving the loop early aborts the row and frees its pages. `options` and errors as
        in `submit`, at once; the row is queued when the first event is asked for.
        """
        request = self.prepare(prompt, GenerationConfig.from_options(options))
        if len(request.states) != 1:
            raise InvalidRequest("n", f"must be 1 for a stream, got {len(request.states)}")
        return Stream(request, self._stream(request))

    def _stream(self, request: Request) -> Iterator[Event]:
        self.enqueue(request)
        try:
            yield from request.events()
        finally:
            request.abort()

    @property
    def waiting(self) -> int:
        """Rows queued and not admitted yet."""
        return self.scheduler.waiting

    @property
    def live(self) -> int:
        """Rows that are being decoded."""
        return self.scheduler.live

    def step(self) -> None:
        """Advance every live row of the engine by one step. Safe to call from several threads."""
        with self.lock, torch.inference_mode():
            self.scheduler.step()

    def logits(
        self, ids: Tensor | Sequence[Sequence[int]], attention_mask: Any = None, where: Any = None
    ) -> Tensor:
        """`ids [B, L]` -> `logits [B, L, V]`: row i predicts position i.

        Families with a shift repeat a row's first logits. `attention_mask [B, L]` is 0 at padding,
        which may stand before and after a row's tokens; their logits are those of the row without
        it, and zero at the padding itself. `where [B, L]` names the positions that are wanted:
        `logits [N, V]` of these, row by row, and the head runs nowhere else. Attention has the
        pattern of the model's training. Raises `CheckpointError` when logits are not finite.
        """
        return dense_logits(self.model, ids, attention_mask, where, shift=self.info.shift)

    def explain(self, **options: Any) -> Explanation:
        """Describe a generation with these options: each part, with its tier of truth."""
        config = GenerationConfig.from_options(options)
        return explain(bind_request(config, self.text, self.info), self.info)
