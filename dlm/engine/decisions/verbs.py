"""The verb `decide` of engines."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from dlm.core import ModelInfo
from dlm.decode.iteration import IterationManager
from dlm.engine.decisions.answers import Decisions
from dlm.engine.decisions.job import DecisionJob, Input
from dlm.engine.decisions.options import DecisionOptions
from dlm.engine.decisions.questions import Question
from dlm.engine.jobs import drive
from dlm.engine.scheduler import Scheduler
from dlm.model.decoder import Decoder
from dlm.model.kv_store import KVPool
from dlm.text import Text


class Deciding:
    """Gives an engine the verb `decide`."""

    model: Decoder
    info: ModelInfo
    text: Text | None
    kv: KVPool
    manager: IterationManager
    scheduler: Scheduler
    lock: threading.RLock

    def decide(
        self, source: Input, questions: Question | Sequence[Question], **options: Any
    ) -> Decisions:
        """Answer typed questions about one input by the probabilities of labels in holes.

        Nothing is generated. `source` is a text, or messages that are shown as a transcript;
        `options` are the fields of `DecisionOptions`. Rows that are being decoded go on between
        two forwards if another thread drives them. Raises `InvalidRequest` that names the field
        before any work starts, `Unavailable` when the key/value pool has no room, and
        `CheckpointError` when logits are not finite.
        """
        job = self.prepare_decisions(source, questions, DecisionOptions.from_options(options))
        return drive(job, self.lock)

    def prepare_decisions(
        self,
        source: Input,
        questions: Question | Sequence[Question],
        options: DecisionOptions,
        longest: int | None = None,
    ) -> DecisionJob:
        """Checked questions with their canvases, made in any thread. Errors as in `decide`.

        longest: positions of a canvas, if less than the model's
        """
        return DecisionJob(self, source, questions, options, longest)
