"""The verb `decide` of engines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from dlm.core import ModelInfo
from dlm.decode.iteration import IterationManager
from dlm.engine.decisions.answers import Decisions
from dlm.engine.decisions.job import DecisionJob, Input
from dlm.engine.decisions.options import DecisionOptions
from dlm.engine.decisions.questions import Question
from dlm.engine.scheduler import Scheduler
from dlm.model.decoder import Decoder
from dlm.model.kv_store import KVPool
from dlm.text import Text

Result = TypeVar("Result")


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
        more = True
        try:
            while more:
                with self.lock:
                    more = job.step()
        finally:
            with self.lock:
                job.close()
        return job.result()

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


class Calling(Protocol):
    """The member of an engine for asyncio that `run_job` uses."""

    async def call(self, function: Callable[[], Result]) -> Result:
        """Have the driving thread run a function between two steps."""
        ...


async def run_job(driver: Calling, job: DecisionJob, lock: threading.RLock) -> Decisions:
    """Drive a job, one forward between two steps of the rows that are being decoded.

    Frees its pages when the task is cancelled. Errors as in `Engine.decide`.
    """

    def release() -> None:
        with lock:
            job.close()

    try:
        while await driver.call(job.step):
            pass
    finally:
        await asyncio.shield(asyncio.to_thread(release))
    return job.result()
