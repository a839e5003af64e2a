"""Trials: one search on one item, with all answers it has found and the forwards it had spent."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Final, Self

import dlm
from dlm.evals.items import Item
from dlm.evals.lines import appending, read_lines
from dlm.evals.sampling import asked

CLOCK: Final = "cpu.jsonl"
"""The file of a run that adds up its processor time."""


@dataclass(frozen=True, slots=True)
class Found:
    """An answer of a search.

    nfe: forwards that the search had spent when it was judged
    score: the verifier's (None: none, or no finite one)
    right: the task's grader says so
    """

    text: str
    nfe: float
    score: float | None
    right: bool


@dataclass(frozen=True, slots=True)
class Trial:
    """One search on one item.

    answers: all that it has found, in their order
    best: (nfe, index): from `nfe` forwards on this answer was the best so far; the last one is the
        answer of the search
    nfe: all forwards, `verifier_nfe` those of verifiers among them
    launches, token_forwards, shared_forwards, verifier_calls, verifier_errors, reason: as in
        `dlm.SearchCosts` and `dlm.SearchResult`
    """

    item: str
    answers: Sequence[Found]
    best: Sequence[tuple[float, int]]
    nfe: float
    verifier_nfe: float
    launches: int
    token_forwards: int
    shared_forwards: int
    verifier_calls: int
    verifier_errors: int
    reason: str

    @classmethod
    def of(cls, item: Item, result: dlm.SearchResult) -> Self:
        """Grade a search on an item."""
        verdicts = {text: item.grade(text) for text in {one.text for one in result.candidates}}
        costs = result.costs
        answers = [
            Found(one.text, one.nfe, one.score if isfinite(one.score) else None, verdicts[one.text])
            for one in result.candidates
        ]
        best = [(point.nfe, point.candidate) for point in result.curve]
        chosen = next(one.number for one in result.candidates if one.answer is result.best)
        if best[-1][1] != chosen:
            best.append((costs.nfe, chosen))
        return cls(
            item=item.id,
            answers=answers,
            best=best,
            nfe=costs.nfe,
            verifier_nfe=costs.verifier_nfe,
            launches=costs.launches,
            token_forwards=costs.token_forwards,
            shared_forwards=costs.shared_forwards,
            verifier_calls=costs.verifier_calls,
            verifier_errors=costs.verifier_errors,
            reason=result.reason,
        )

    @classmethod
    def parse(cls, line: Mapping[str, Any]) -> Self:
        """A trial of a line of its file. Raises `ValueError` for one that is none."""
        try:
            answers = [Found(**one) for one in line["answers"]]
            best = [(float(nfe), int(index)) for nfe, index in line["best"]]
            trial = cls(**{**line, "answers": answers, "best": best})
        except (KeyError, TypeError) as error:
            raise ValueError(f"is no trial: {error!r}") from error
        if not best or not all(0 <= index < len(answers) for _, index in best):
            raise ValueError("is no trial: its best answer is none of its answers")
        return trial


def read_trials(path: Path) -> dict[str, Trial]:
    """Item -> its trial, of a file; empty without one. Raises `InvalidRequest` for a bad line."""
    return {trial.item: trial for trial in read_lines(path, Trial.parse)}


def draw_trials(
    engine: dlm.Engine,
    items: Sequence[Item],
    options: Mapping[str, Any],
    path: Path,
    at_once: int,
    tell: Callable[[Trial], object],
) -> None:
    """Search on the items that `path` has no trial of, and append these, a line each.

    options: of `AsyncEngine.search`
    at_once: searches under way together, whose rows share forwards
    """
    with appending(path, wait=False) as file:
        done = read_trials(path)
        todo = [item for item in items if item.id not in done]

        async def draw() -> None:
            async with aclosing(searched(engine, todo, lambda _: options, at_once)) as found:
                async for item, result in found:
                    trial = await asyncio.to_thread(Trial.of, item, result)
                    file.write(json.dumps(asdict(trial), allow_nan=False) + "\n")
                    file.flush()
                    tell(trial)

        asyncio.run(draw())


async def searched(
    engine: dlm.Engine,
    items: Sequence[Item],
    options: Callable[[Item], Mapping[str, Any]],
    at_once: int,
) -> AsyncGenerator[tuple[Item, dlm.SearchResult], None]:
    """Items with their searches, in the order in which they end, `at_once` of them under way."""
    waiting = list(reversed(items))
    async with dlm.AsyncEngine(engine) as served:

        async def search(item: Item) -> tuple[Item, dlm.SearchResult]:
            return item, await served.search(asked(engine, item), **options(item))

        live: set[asyncio.Task[tuple[Item, dlm.SearchResult]]] = set()
        try:
            while waiting or live:
                while waiting and len(live) < at_once:
                    live.add(asyncio.create_task(search(waiting.pop())))
                ended, live = await asyncio.wait(live, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    yield task.result()
        finally:
            for task in live:
                task.cancel()
            await asyncio.gather(*live, return_exceptions=True)


def cpu_seconds() -> float:
    """Processor time of this process and of those that it has waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)
