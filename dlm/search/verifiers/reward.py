"""Reward models: sequence classifiers of transformers."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from dlm.config.checks import require_integer
from dlm.engine.generation import Generation
from dlm.errors import InvalidRequest, shown
from dlm.search.verifier import FAILED, Question, Verdict, Verifier, require_words
from dlm.search.verifiers.other import OtherModel, batches

LOADED: Final = 2
"""Models that stay loaded between searches."""


class Loaded(NamedTuple):
    """A classifier and its tokenizer."""

    model: Any
    tokenizer: Any


@dataclass(frozen=True, slots=True)
class RewardModel(OtherModel):
    """`reward_model(folder)`: the reward of a conversation of a prompt and an answer, by a model of
    transformers for sequence classification.

    The reward is the one output of the model; of a model with several, the log-probability of
    `label`. The text is that of the tokenizer's chat template, or the prompt and the answer on
    lines of their own where it has none; one that is too long for the model fails.

    folder: a local folder with a model and its tokenizer
    label: number of the output (None: the only one)
    """

    folder: str
    label: int | None = None
    loaded: Any = field(default=None, metadata={"bound": True})

    def __post_init__(self) -> None:
        require_integer("label", self.label, 0, optional=True)

    @property
    def parameters(self) -> int:
        """The number of the model's parameters."""
        return sum(one.numel() for one in self.loaded.model.parameters())

    def bind(self, question: Question) -> Verifier:
        """See `Verifier`; loads the model."""
        require_words(self, question)
        if not isinstance(self.folder, str) or not Path(self.folder, "config.json").is_file():
            rule = "`folder` must be a local folder with a model for sequence classification"
            raise InvalidRequest("verifier", f"{rule}, got {shown(self.folder)}")
        device = str(question.engine.model.embedding.weight.device)
        found = classifier(self.folder, device)
        count = found.model.config.num_labels
        if count > 1 if self.label is None else self.label >= count:
            rule = f"`label` must be one of the {count} outputs of the model, numbered from 0"
            raise InvalidRequest("verifier", f"{rule}, got {shown(self.label)}")
        return replace(self, loaded=found)

    def score(self, answers: Sequence[Generation], question: Question) -> Sequence[Verdict]:
        """See `Verifier`."""
        verdicts, rows = [FAILED] * len(answers), dict[int, list[int]]()
        for number, answer in enumerate(answers):
            with question.spent.guarded():
                rows[number] = self._row(question, answer)
        numbers = list(rows)
        for batch in batches([len(rows[number]) for number in numbers]):
            own = [numbers[at] for at in batch]
            rewards = self._rewards([rows[number] for number in own])
            for number, reward in zip(own, rewards, strict=True):
                self.bill(question, answers[number], len(rows[number]))
                verdicts[number] = Verdict(reward)
        return verdicts

    def _row(self, question: Question, answer: Generation) -> list[int]:
        """A conversation as the model reads it. Raises `ValueError` for one that is too long."""
        tokenizer, prompt = self.loaded.tokenizer, question.prompt
        if tokenizer.chat_template:
            said = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            turns = [*said, {"role": "assistant", "content": answer.text or ""}]
            text = tokenizer.apply_chat_template(turns, tokenize=False)
            ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            ids = tokenizer(f"{question.text}\n{answer.text or ''}")["input_ids"]
        most = getattr(self.loaded.model.config, "max_position_embeddings", len(ids))
        if not 0 < len(ids) <= most:
            raise ValueError(f"must have between 1 and {most} tokens, got {len(ids)}")
        return ids

    def _rewards(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """The reward of each row, in one forward."""
        model, tokenizer = self.loaded
        batch: Mapping[str, Any] = tokenizer.pad({"input_ids": list(rows)}, return_tensors="pt")
        with torch.inference_mode():
            out = model(**{name: value.to(model.device) for name, value in batch.items()})
        logits = out.logits.double()  # [R, labels]
        if self.label is None:
            return [float(reward) for reward in logits[:, 0]]
        return [float(reward) for reward in logits.log_softmax(1)[:, self.label]]


@functools.lru_cache(maxsize=LOADED)
def classifier(folder: str, device: str) -> Loaded:
    """A classifier, which stays loaded. Raises `InvalidRequest` for a folder that holds none."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        rule = f"`folder` {shown(folder)} cannot be loaded as a model for sequence classification"
        raise InvalidRequest("verifier", f"{rule}: {error}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    return Loaded(model.to(device).eval(), tokenizer)
