"""The time of a search against that of the same rows decoded without one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dlm import Engine

PROMPT = "Countdown: use 2 10 3 to make 9."


@dataclass(frozen=True, slots=True)
class SearchOverhead:
    """Seconds of `generate(n=rows)` and of a search of the same rows, pair by pair.

    forwards: those of all rows together, a forward that rows share counted for each of them.
    cpu: (generate, search), seconds by the thread's CPU clock, of each pair.
    wall: the same by the wall clock.
    """

    rows: int
    forwards: int
    cpu: tuple[tuple[float, float], ...]
    wall: tuple[tuple[float, float], ...]

    @property
    def ratio(self) -> float:
        """Search over generate: the median of the pairs' ratios of CPU time."""
        return _median_ratio(self.cpu)

    def __str__(self) -> str:
        times = [statistics.median(column) * 1e3 for column in zip(*self.cpu, strict=True)]
        return (
            f"search / generate(n={self.rows})  {self.ratio:.3f}  "
            f"(wall {_median_ratio(self.wall):.3f})   {len(self.cpu)} pairs, "
            f"{self.forwards} forwards of rows each, "
            f"{times[1]:.1f} and {times[0]:.1f} ms of CPU time"
        )


def search_overhead(
    engine: Engine, prompt: str = PROMPT, *, rows: int = 16, repeats: int = 11, **options: Any
) -> SearchOverhead:
    """Time `best_of(rows)` with all its rows at once against `generate(n=rows)`, in turns.

    Both decode the same answers in the same batches; the search also judges them by their
    confidence, lists them and keeps a tree. Raises RuntimeError where the work differs.
    """
    asked = {"temperature": 1.0, "max_new_tokens": 32, **options}
    search = f"best_of({rows}, width={rows})"

    def plainly() -> int:
        answers = engine.generate(prompt, n=rows, **asked).choices
        return sum(one.stats.nfe for one in answers)

    def searching() -> int:
        costs = engine.search(prompt, search, verifier="confidence", **asked).costs
        return costs.row_forwards + costs.shared_forwards

    forwards = plainly()
    pairs = []
    for turn in range(-1, repeats):  # the pair of turn -1 warms up
        order = (plainly, searching) if turn % 2 else (searching, plainly)
        timed = {work: _timed(work) for work in order}
        if {found for found, _, _ in timed.values()} != {forwards}:
            raise RuntimeError("the search and its rows took different numbers of forwards")
        pairs.append((timed[plainly], timed[searching]))
    cpu, wall = (tuple((a[at], b[at]) for a, b in pairs[1:]) for at in (1, 2))
    return SearchOverhead(rows, forwards, cpu, wall)


def _timed(work: Callable[[], int]) -> tuple[int, float, float]:
    """The forwards of some work, and its seconds of CPU and of wall time."""
    start = time.thread_time(), time.perf_counter()
    found = work()
    return found, time.thread_time() - start[0], time.perf_counter() - start[1]


def _median_ratio(pairs: tuple[tuple[float, float], ...]) -> float:
    return statistics.median(search / plain for plain, search in pairs)
