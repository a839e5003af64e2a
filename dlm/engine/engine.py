"""`Engine`: the object people hold. It turns prompts into tickets, tickets into events, events
into generations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor

from dlm.config import GenerationConfig, bind
from dlm.core import Event, ModelInfo
from dlm.engine.admission import Ticket
from dlm.engine.explain import Explanation, explain
from dlm.engine.generation import Generation, answer_of, logprobs_of, stats_of
from dlm.engine.iteration import IterationManager
from dlm.engine.scheduler import Scheduler, iterate
from dlm.errors import Interrupted, InvalidRequest
from dlm.model.decoder import Decoder
from dlm.model.kv import KVPool
from dlm.text import IncrementalDecoder, StopMatcher, Text

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]
"""A text (one user turn), token ids as they are, or chat messages."""


class Engine:
    """A model, its tokenizer and the loop. Not thread-safe: one caller at a time.

    `max_rows` bounds the rows of one forward, `kv_bytes` the key/value pool (None: as much as the
    rows need).
    """

    def __init__(
        self,
        model: Decoder,
        info: ModelInfo,
        text: Text | None = None,
        *,
        max_rows: int = 32,
        kv_bytes: int | None = None,
        name: str = "",
    ) -> None:
        weight = model.embedding.weight
        self.model, self.info, self.text, self.name = model, info, text, name
        self.kv = KVPool(model.spec, device=weight.device, dtype=weight.dtype, max_bytes=kv_bytes)
        self.manager = IterationManager(model, self.kv, info, weight.device)
        self.scheduler = Scheduler(self.manager, max_rows=max_rows)

    def generate(self, prompt: Prompt | Sequence[Prompt], **options: Any) -> Any:
        """Answer one prompt (a `Generation`) or a list of them (a list, in order), decoded as one
        batch.

        `options` are the fields of `GenerationConfig`. Raises `InvalidRequest` before any work
        starts.
        """
        batch = _is_batch(prompt)
        prompts: list[Any] = list(prompt) if batch else [prompt]
        config = GenerationConfig.from_options(options)
        tickets = [self._tickets(p, config) for p in prompts]
        everyone = [ticket for group in tickets for ticket in group]
        for ticket in everyone:
            self.scheduler.check(ticket)

        interrupt: KeyboardInterrupt | None = None
        try:
            with torch.inference_mode():
                for ticket in everyone:
                    self.scheduler.submit(ticket)
                while not all(ticket.done for ticket in everyone):
                    self.scheduler.step()
        except KeyboardInterrupt as stop:
            interrupt = stop
        finally:
            for ticket in everyone:
                self.scheduler.abort(ticket)
        for ticket in everyone:
            if ticket.error is not None:
                raise ticket.error
        answers = [self._generation(group, config) for group in tickets]
        results = answers if batch else answers[0]
        if interrupt is not None:
            raise Interrupted(results) from interrupt
        return results

    def stream(self, prompt: Prompt, **options: Any) -> Iterator[Event]:
        """The events of one answer as they happen. Leaving the loop early aborts the row and
        frees its pages.
        """
        config = GenerationConfig.from_options(options)
        if config.n != 1:
            raise InvalidRequest("n", f"must be 1 for a stream, got {config.n}")
        (ticket,) = self._tickets(prompt, config)
        self.scheduler.check(ticket)
        return self._stream(ticket)

    def _stream(self, ticket: Ticket) -> Iterator[Event]:
        self.scheduler.submit(ticket)
        events = iterate(self.scheduler, ticket)
        try:
            while True:
                with torch.inference_mode():
                    event = next(events, None)
                if event is None:
                    return
                yield event
        finally:
            self.scheduler.abort(ticket)

    def logits(
        self, ids: Tensor | Sequence[Sequence[int]], attention_mask: Tensor | None = None
    ) -> Tensor:
        """`ids [B, L]` -> `logits [B, L, V]`: row i predicts position i (families with a shift
        repeat row 0).

        `attention_mask [B, L]` is 0 at padding. Attention has the pattern of the model's training.
        """
        canvas = torch.as_tensor(ids, dtype=torch.long, device=self.manager.device)
        if canvas.dim() != 2:
            raise InvalidRequest("ids", f"must have shape [B, L], got {tuple(canvas.shape)}")
        with torch.inference_mode():
            mask = visibility(self.info, canvas.shape[1], canvas.device)
            if attention_mask is not None:
                mask = mask & attention_mask.bool().to(canvas.device)[:, None, None, :]
            out: Tensor = self.model.head(self.model.dense(canvas, mask)).float()
        return torch.cat((out[:, :1], out[:, :-1]), dim=1) if self.info.shift else out

    def explain(self, **options: Any) -> Explanation:
        """What a generation with these options would do, part by part, and how far each part is
        proved.
        """
        config = GenerationConfig.from_options(options)
        return explain(bind(config, self.info), self.info)

    def _tickets(self, prompt: Prompt, config: GenerationConfig) -> list[Ticket]:
        """One ticket for each choice."""
        bound = bind(config, self.info)
        if bound.stop_strings and self.text is None:
            raise InvalidRequest(
                "stop", "stop strings need a tokenizer, and this model came without one"
            )
        ids = self._prompt_ids(prompt)
        tickets = []
        for choice in range(config.n):
            watch = (
                _Watch(self.text, bound.stop_strings) if self.text and bound.stop_strings else None
            )
            tickets.append(Ticket(ids, bound, choice, watch))
        return tickets

    def _prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        if _is_ids(prompt):
            ids = tuple(prompt)
            if any(not 0 <= i < self.info.vocab_size for i in ids):
                raise InvalidRequest(
                    "prompt", f"ids must be between 0 and {self.info.vocab_size - 1}"
                )
        elif self.text is None:
            raise InvalidRequest("prompt", "this model came without a tokenizer: give token ids")
        else:
            ids = tuple(self.text.encode_prompt(cast("str | Sequence[Mapping[str, Any]]", prompt)))
        if not ids:
            raise InvalidRequest("prompt", "must not be empty")
        return ids

    def _generation(self, tickets: Sequence[Ticket], config: GenerationConfig) -> Generation:
        choices = tuple(self._choice(ticket, config) for ticket in tickets)
        return replace(choices[0], choices=choices) if len(choices) > 1 else choices[0]

    def _choice(self, ticket: Ticket, config: GenerationConfig) -> Generation:
        end_ids = ticket.bound.parts.end_ids or self.info.eos_ids
        answer, ended = answer_of(ticket.canvas, ticket.limit, end_ids)
        text = None if self.text is None else self.text.decode(answer)
        if isinstance(ticket.watch, _Watch) and ticket.watch.text is not None:
            text = ticket.watch.text
        return Generation(
            text=text,
            ids=tuple(answer),
            finish_reason="stop" if ended else str(ticket.canvas.reason),
            stats=stats_of(ticket.ledger, len(answer), ticket.seconds),
            prompt_ids=ticket.prompt,
            canvas=tuple(ticket.canvas.ids),
            logprobs=logprobs_of(ticket.canvas, len(answer)),
            trace=tuple(ticket.events) if config.trace else (),
        )


class _Watch:
    """Looks for stop strings in the settled text."""

    def __init__(self, text: Text, strings: Sequence[str]) -> None:
        self._decoder, self._matcher = IncrementalDecoder(text), StopMatcher(strings)
        self._text, self._strings, self._seen = text, strings, list[int]()

    @property
    def text(self) -> str | None:
        """The text before the first stop string, once one is complete."""
        cut = self._matcher.cut
        return None if cut is None else self._matcher.text[:cut]

    def __call__(self, ids: Sequence[int]) -> bool:
        """Take newly settled ids; whether a stop string is complete."""
        self._seen += ids
        return self._matcher.feed(self._decoder.feed(ids)) is not None

    def fork(self) -> _Watch:
        """A watch that has seen the same ids."""
        twin = _Watch(self._text, self._strings)
        twin(self._seen)
        return twin


def visibility(info: ModelInfo, length: int, device: torch.device) -> Tensor:
    """`[L, L]` bool: which keys a query may see under the model's attention pattern."""
    at = torch.arange(length, device=device)
    if info.attention == "full":
        return torch.ones(length, length, dtype=torch.bool, device=device)
    block = torch.div(at, info.alignment, rounding_mode="floor")
    return block[:, None] >= block[None, :]


def _is_ids(prompt: Any) -> TypeGuard[Sequence[int]]:
    return not isinstance(prompt, str) and all(isinstance(i, int) for i in prompt)


def _is_batch(prompt: Any) -> bool:
    """A list of prompts, as against one text, one list of ids, or one list of messages."""
    if isinstance(prompt, str):
        return False
    if not isinstance(prompt, Iterable) or isinstance(prompt, Mapping):
        raise InvalidRequest(
            "prompt", f"must be a text, token ids, messages, or a list of these, got {prompt!r}"
        )
    items = list(prompt)
    return not items or (
        not all(isinstance(i, int) for i in items)
        and not all(isinstance(i, Mapping) for i in items)
    )
