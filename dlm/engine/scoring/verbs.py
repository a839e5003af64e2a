"""The verb `score` of engines."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from dlm.core import ModelInfo
from dlm.decode.iteration import IterationManager
from dlm.engine.binding import prompt_ids
from dlm.engine.canvas_reader import Ids
from dlm.engine.jobs import drive
from dlm.engine.scheduler import Scheduler
from dlm.engine.scoring.job import LogLikelihood, ScoringJob
from dlm.engine.scoring.rows import Method, ScoringOptions
from dlm.errors import InvalidRequest, require_text, shown
from dlm.model.decoder import Decoder
from dlm.model.kv_store import KVPool
from dlm.text import Text, no_tokenizer
from dlm.text.prompts import Prompt

Answer = str | Sequence[int]
"""A text, encoded as it follows its prompt, or token ids."""
Pair = tuple[Prompt | None, Answer]
"""A prompt (None: an empty one) and the text that follows it."""


class Scoring:
    """Gives an engine the verb `score`."""

    model: Decoder
    info: ModelInfo
    text: Text | None
    kv: KVPool
    manager: IterationManager
    scheduler: Scheduler
    lock: threading.RLock

    def score(
        self,
        prompt: Prompt | None,
        answer: Answer,
        *,
        method: Method = "chain",
        rate: float | None = None,
        seed: int = 0,
        top_logprobs: int = 0,
    ) -> LogLikelihood:
        """The log-likelihood of a text that follows a prompt. Nothing is generated.

        `answer` is a text, encoded as it follows the prompt, or ids; `prompt` is one as in
        `generate`, or None or empty but for families with a shift. `chain` takes a canvas for each
        token; `pseudo` one for each set of positions. Other arguments are the fields of
        `ScoringOptions`. Raises `InvalidRequest` before any work starts (for models without a
        mask, too), `Unavailable` when the key/value pool has no room, and `CheckpointError` when
        logits are not finite.
        """
        options = ScoringOptions(method, rate, seed, top_logprobs)
        return drive(self.prepare_scores([(prompt, answer)], options), self.lock)[0]

    def score_all(
        self,
        pairs: Sequence[Pair],
        *,
        method: Method = "chain",
        rate: float | None = None,
        seed: int = 0,
        top_logprobs: int = 0,
    ) -> list[LogLikelihood]:
        """The same for each of many pairs `(prompt, answer)`, in forwards that they share.

        A canvas that several pairs have in common is computed once. Rows that are being decoded go
        on between two forwards if another thread drives them. Errors as in `score`, with
        `pairs[i].` before the name.
        """
        options = ScoringOptions(method, rate, seed, top_logprobs)
        return drive(self.prepare_scores(pairs, options), self.lock)

    def prepare_scores(
        self, pairs: Sequence[Pair], options: ScoringOptions, longest: int | None = None
    ) -> ScoringJob:
        """Checked pairs with their canvases, made in any thread. Errors as in `score_all`.

        longest: positions of a canvas, if less than the model's
        """
        return ScoringJob(self, encoded(pairs, self.text, self.info), options, longest)


def encoded(pairs: Sequence[Pair], text: Text | None, info: ModelInfo) -> list[tuple[Ids, Ids]]:
    """The ids of prompts and of the texts that follow them. Raises `InvalidRequest`."""
    known: dict[str, Ids] = {}  # many texts may follow one prompt
    found = []
    for number, (prompt, answer) in enumerate(pairs):
        try:
            tokens = _answer_ids(answer, text, info)
            ids = known.get(prompt) if isinstance(prompt, str) else None
            if ids is None:
                ids = _prompt_ids(prompt, text, info)
            if isinstance(prompt, str):
                known[prompt] = ids
        except InvalidRequest as error:
            if len(pairs) == 1:
                raise
            raise InvalidRequest(f"pairs[{number}].{error.param}", error.message) from error
        found.append((ids, tokens))
    return found


def _prompt_ids(prompt: Prompt | None, text: Text | None, info: ModelInfo) -> Ids:
    """The ids of a prompt as everywhere, or none."""
    if prompt is None or (not isinstance(prompt, str) and len(prompt) == 0):
        return ()
    return prompt_ids(prompt, text, info, pinned=(0,))  # something follows: it may be empty


def _answer_ids(answer: Any, text: Text | None, info: ModelInfo) -> Ids:
    if isinstance(answer, str):
        if text is None:
            raise no_tokenizer("answer")
        ids = tuple(text.encode_inside(require_text("answer", answer), "answer"))
    else:
        items = answer.tolist() if hasattr(answer, "tolist") else answer
        if not isinstance(items, Sequence) or any(type(item) is not int for item in items):
            rule = f"must be a text or a list of token ids, got {shown(answer)}"
            raise InvalidRequest("answer", rule)
        ids = tuple(items)
    info.check_answer_ids("answer", ids)
    return ids
