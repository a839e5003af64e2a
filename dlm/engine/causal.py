"""Autoregressive decoding: the row that diffusion models are compared with, one token a forward."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from dlm.core import ForwardPlan, Segment, pack, span
from dlm.engine.generation import Generation, Stats
from dlm.engine.stats import Sampler, draw_tokens, row_stats, token_uniforms
from dlm.errors import InvalidRequest
from dlm.model.decoder import Decoder
from dlm.model.kv import KVPool
from dlm.text import Text


@dataclass(frozen=True, slots=True)
class CausalConfig:
    """What a user may ask: as in `GenerationConfig`, of which nothing else applies here."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InvalidRequest("max_new_tokens", f"must be at least 1, got {self.max_new_tokens}")
        if not 0 <= self.temperature < math.inf:
            raise InvalidRequest(
                "temperature", f"must be a finite number of at least 0, got {self.temperature}"
            )


class CausalEngine:
    """Continues prompts with a causal model, one request at a time.

    Keys and values are kept, so that a forward computes the prompt or one token. A draw is keyed by
    (seed, position) as in the diffusion engine. Not for several threads.
    """

    def __init__(
        self, model: Decoder, eos_ids: Sequence[int], text: Text | None = None, *, name: str = ""
    ) -> None:
        weight = model.embedding.weight
        self.model, self.eos_ids, self.text, self.name = model, tuple(eos_ids), text, name
        self.device = weight.device
        self.kv = KVPool(model.spec, device=weight.device, dtype=weight.dtype)

    def generate(self, prompt: str | Sequence[int], **options: Any) -> Generation:
        """Answer one prompt; `options` are the fields of `CausalConfig`.

        Raises `InvalidRequest` before any work starts.
        """
        unknown = set(options) - set(CausalConfig.__dataclass_fields__)
        if unknown:
            known = ", ".join(CausalConfig.__dataclass_fields__)
            raise InvalidRequest(min(unknown), f"is no option of a causal model: {known}")
        config, ids = CausalConfig(**options), self._ids(prompt)
        length = len(ids) + config.max_new_tokens
        if length > self.model.spec.max_length:
            raise InvalidRequest(
                "max_new_tokens",
                f"a prompt of {len(ids)} and {config.max_new_tokens} new tokens are {length}; the "
                f"limit of the model is {self.model.spec.max_length}",
            )
        pages = self.kv.reserve(self.kv.pages_for(length))
        try:
            with torch.inference_mode():
                return self._decode(ids, torch.tensor([[pages]]), config)
        finally:
            self.kv.release(pages)

    def _decode(self, prompt: list[int], pages: Tensor, config: CausalConfig) -> Generation:
        """Forward after forward, until an end id or the limit."""
        begun, ids = time.perf_counter(), list(prompt)
        answer: list[int] = []
        sure: list[float] = []
        computed = forwards = 0
        reason = "length"
        while len(answer) < config.max_new_tokens:
            token, c = self._next(ids, computed, pages, config)
            computed, forwards = len(ids), forwards + 1
            if token in self.eos_ids:
                reason = "stop"
                break
            ids.append(token)
            answer.append(token)
            sure.append(c)
        steps = {"prefill step": 1, "step": forwards - 1}
        seconds = time.perf_counter() - begun
        return Generation(
            text=None if self.text is None else self.text.decode(answer),
            ids=tuple(answer),
            finish_reason=reason,
            stats=Stats(forwards, len(answer), computed, 0, 0, steps, {}, {}, seconds),
            prompt_ids=tuple(prompt),
            canvas=tuple(ids),
            logprobs=tuple(math.log(max(c, 1e-45)) for c in sure),
        )

    def _next(
        self, ids: Sequence[int], computed: int, pages: Tensor, config: CausalConfig
    ) -> tuple[int, float]:
        """Compute what is new and draw the token behind it, with its probability."""
        queries = span(computed, len(ids))
        here = span(len(ids), len(ids) + 1)  # the position that is drawn
        segment = Segment(0, 0, queries, queries + 1, write=True, predict=here)
        lengths = np.array([pages.shape[-1] * self.kv.page_size])
        plan = ForwardPlan((segment,), ("step",), pages, len(ids) + 1, lengths=lengths)
        canvas = torch.tensor([[*ids, 0]], device=self.device)
        packed = pack([plan], self.kv, shift=True, device=self.device).read([canvas])
        stats = row_stats(self.model(packed, self.kv), None, frozenset())
        if config.temperature > 0:
            one = torch.ones(1, device=self.device)
            key = (one.long() * config.seed, one.long() * 0)
            at = one.long()[None] * len(ids)
            u = token_uniforms(*key, at, one.long() * 0)[0]
            sampler = Sampler(one * config.temperature, one, one.long() * 0, filters=False)
            stats = draw_tokens(stats, None, sampler, one.long() * 0, u)
        return int(stats.token[0]), float(stats.c[0])

    def _ids(self, prompt: Any) -> list[int]:
        if not isinstance(prompt, str) and all(isinstance(i, int) for i in prompt):
            ids = list(prompt)
        elif self.text is None:
            raise InvalidRequest("prompt", "this model came without a tokenizer: give token ids")
        else:
            ids = self.text.encode_prompt(cast("str | Sequence[Mapping[str, Any]]", prompt))
        if not ids:
            raise InvalidRequest("prompt", "must not be empty")
        size = self.model.spec.vocab_size
        if not all(0 <= token < size for token in ids):
            raise InvalidRequest("prompt", f"ids must be between 0 and {size - 1}")
        return ids

    # the face of an engine that evaluations drive

    def submit(self, prompt: str | Sequence[int], **options: Any) -> CausalRequest:
        """A request that is answered at once."""
        return CausalRequest(self.generate(prompt, **options))

    def step(self) -> None:
        """Nothing is left to do: `submit` has answered."""


@dataclass(frozen=True, slots=True)
class CausalRequest:
    """An answered request, with the face of `dlm.Request`."""

    answer: Generation
    done: bool = True

    def ignore_events(self) -> None:
        """There are none."""

    def abort(self) -> None:
        """It has ended."""

    def result(self) -> Generation:
        """The answer."""
        return self.answer
