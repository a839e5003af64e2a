"""The verbs `decide` and `score` of engines for asyncio, beside the rows that are decoded."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from dlm.engine.decisions import DecisionJob, DecisionOptions, Decisions, Question
from dlm.engine.decisions.job import Input
from dlm.engine.engine import Engine
from dlm.engine.jobs import run_job
from dlm.engine.scoring import LogLikelihood, ScoringJob, ScoringOptions
from dlm.engine.scoring.verbs import Answer, Pair
from dlm.text.prompts import Prompt

Result = TypeVar("Result")


class AsyncAsking:
    """Gives an engine for asyncio the verbs that decode no rows."""

    engine: Engine

    @abstractmethod
    async def call(self, function: Callable[[], Result]) -> Result:
        """Have the driving thread run a function between two steps."""

    async def decide(
        self, source: Input, questions: Question | Sequence[Question], **options: Any
    ) -> Decisions:
        """Answer typed questions about one input, as `Engine.decide` does, between the steps of
        what is being decoded.
        """
        asked = source, questions, DecisionOptions.from_options(options)
        return await self.run_decisions(
            await asyncio.to_thread(self.engine.prepare_decisions, *asked)
        )

    async def run_decisions(self, job: DecisionJob) -> Decisions:
        """The answers of prepared questions. Errors as in `Engine.decide`."""
        return await run_job(self, job, self.engine.lock)

    async def score(self, prompt: Prompt | None, answer: Answer, **options: Any) -> LogLikelihood:
        """The log-likelihood of a text that follows a prompt, as `Engine.score` has it, between the
        steps of what is being decoded.
        """
        return (await self.score_all([(prompt, answer)], **options))[0]

    async def score_all(self, pairs: Sequence[Pair], **options: Any) -> list[LogLikelihood]:
        """The same for each of many pairs. Options and errors as in `Engine.score_all`."""
        how = ScoringOptions.from_options(options)
        return await self.run_scores(
            await asyncio.to_thread(self.engine.prepare_scores, pairs, how)
        )

    async def run_scores(self, job: ScoringJob) -> list[LogLikelihood]:
        """The log-likelihoods of prepared pairs. Errors as in `Engine.score_all`."""
        return await run_job(self, job, self.engine.lock)
