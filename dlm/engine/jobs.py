"""Jobs: work beside the rows that are decoded, one forward at a time, and who drives it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

Result = TypeVar("Result")
Outcome_co = TypeVar("Outcome_co", covariant=True)


class Job(Protocol[Outcome_co]):
    """Checked work; `step` and `close` are called under the engine's lock."""

    def step(self) -> bool:
        """Do the next forward; False if no other one follows, or the job is closed."""
        ...

    def close(self) -> None:
        """Free what an unfinished job holds."""
        ...

    def result(self) -> Outcome_co:
        """The outcome, after the last step."""
        ...


class Calling(Protocol):
    """The member of an engine for asyncio that `run_job` uses."""

    async def call(self, function: Callable[[], Result]) -> Result:
        """Have the driving thread run a function between two steps."""
        ...


def drive(job: Job[Result], lock: threading.RLock) -> Result:
    """Drive a job to its end; other threads may take the lock between two forwards."""
    more = True
    try:
        while more:
            with lock:
                more = job.step()
    finally:
        with lock:
            job.close()
    return job.result()


async def run_job(driver: Calling, job: Job[Result], lock: threading.RLock) -> Result:
    """Drive a job, one forward between two steps of the rows that are being decoded.

    Frees its pages when the task is cancelled.
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
