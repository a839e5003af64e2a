"""The likelihood of an answer under a causal language model."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

import torch

from dlm.engine.autoregressive import CausalEngine
from dlm.engine.binding import prompt_ids
from dlm.engine.generation import Generation
from dlm.engine.load import bundled_names, load_causal
from dlm.errors import InvalidRequest, shown
from dlm.search.verifier import FAILED, Question, Verdict, Verifier, require_words
from dlm.search.verifiers.free import mean_log
from dlm.search.verifiers.other import OtherModel, batches

LOADED: Final = 2
"""Models that stay loaded between searches."""


@dataclass(frozen=True, slots=True)
class CausalLikelihood(OtherModel):
    """`causal_lm(model)`: the mean log-probability of the tokens of an answer after its prompt, and
    of the end where it has ended, under a causal model, whose tokenizer reads both anew.

    model: a checkpoint folder or a hub id, or an engine of `dlm.load_causal`
    device, dtype: as in `dlm.load_causal`
    """

    model: Any
    device: str = "auto"
    dtype: str = "auto"
    engine: Any = field(default=None, metadata={"bound": True})
    before: tuple[int, ...] = field(default=(), metadata={"bound": True})

    trusted_only: ClassVar[bool] = False

    @property
    def highest(self) -> float:
        """Certainty."""
        return 0.0

    @property
    def parameters(self) -> int:
        """The number of the model's parameters."""
        return sum(one.numel() for one in self.engine.model.parameters())

    @property
    def private(self) -> bool:
        """True but for the models that ship."""
        return self.model not in bundled_names()

    def bind(self, question: Question) -> Verifier:
        """See `Verifier`; loads the model."""
        require_words(self, question)
        engine = self.model
        if isinstance(engine, str):
            engine = loaded(engine, self.device, self.dtype)
        if not isinstance(engine, CausalEngine) or engine.text is None:
            rule = "`model` must be a causal model with a tokenizer"
            raise InvalidRequest("verifier", f"{rule}, got {shown(self.model)}")
        return replace(
            self, engine=engine, before=prompt_ids(question.prompt, engine.text, engine.info)
        )

    def score(self, answers: Sequence[Generation], question: Question) -> Sequence[Verdict]:
        """See `Verifier`."""
        verdicts, rows = [FAILED] * len(answers), dict[int, tuple[int, ...]]()
        for number, answer in enumerate(answers):
            with question.spent.guarded():
                rows[number] = self._row(answer)
        numbers = list(rows)
        for batch in batches([len(rows[number]) for number in numbers]):
            own = [numbers[at] for at in batch]
            found = self._logprobs([rows[number] for number in own])
            for number, logs in zip(own, found, strict=True):
                self.bill(question, answers[number], len(rows[number]))
                verdicts[number] = Verdict(mean_log(logs))
        return verdicts

    def _row(self, answer: Generation) -> tuple[int, ...]:
        """The prompt and an answer as the model reads them. Raises `ValueError` for a long one."""
        end = self.engine.eos_ids[:1] if answer.finish_reason == "stop" else ()
        row = (*self.before, *self.engine.text.encode_inside(answer.text or ""), *end)
        most = self.engine.info.max_length
        if not len(self.before) < len(row) <= most:
            raise ValueError(f"must have between 1 and {most} tokens with its prompt")
        return row

    def _logprobs(self, rows: Sequence[tuple[int, ...]]) -> list[list[float]]:
        """The log-probabilities of the tokens after the prompt in each row, in one forward."""
        start, longest = len(self.before), max(map(len, rows))
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        real = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            real[number, : len(row)] = 1
        where = real.clone()
        where[:, :start] = 0
        logs = self.engine.logits(ids, real, where).double().log_softmax(1)  # [N, V]
        wanted = ids[where.bool()].to(logs.device)  # [N]
        found = logs.gather(1, wanted[:, None])[:, 0]
        return [part.tolist() for part in found.split([len(row) - start for row in rows])]


@functools.lru_cache(maxsize=LOADED)
def loaded(source: str, device: str, dtype: str) -> CausalEngine:
    """A causal model, which stays loaded. Raises `InvalidRequest`."""
    return load_causal(source, device=device, dtype=dtype)
