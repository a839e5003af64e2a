"""Clients of a load, all in one event loop, and the account that each gives of its requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from dlm.evals.load.connection import Broken, Connection
from dlm.evals.load.mix import Ask
from dlm.evals.statistics import percentile

PAUSE: Final = 0.2
"""Seconds that a client waits after an error."""


@dataclass(slots=True)
class Outcome:
    """The way of one request, in seconds since it was sent.

    ask: the request
    status: of HTTP, 0 without an answer
    texts: of its choices
    tokens, nfe: of all choices
    begun: when it was sent, by `time.perf_counter`
    first, last: when its first text and its end came
    left: its client has disconnected, as it was meant to
    error: of the server, in words
    """

    ask: Ask
    status: int = 0
    texts: list[str] = field(default_factory=list)
    tokens: int = 0
    nfe: int = 0
    begun: float = 0.0
    first: float | None = None
    last: float | None = None
    left: bool = False
    error: str = ""


async def run_clients(
    address: tuple[str, int],
    asked: Iterator[Ask],
    clients: int,
    goes_on: Callable[[], bool] = lambda: True,
) -> list[Outcome]:
    """Have a number of clients ask in turn, each when its last request is answered; the outcomes.

    goes_on: False when no client shall begin another request
    """
    outcomes: list[Outcome] = []

    async def client() -> None:
        connections = {slow: Connection(*address, slow=slow) for slow in (False, True)}
        for ask in asked:
            connection = connections[ask.fault == "slow"]
            outcomes.append(await ask_once(connection, ask))
            if outcomes[-1].left:
                connection.close()
            elif outcomes[-1].error:
                connection.close()
                await asyncio.sleep(PAUSE)
            if not goes_on():
                break
        for connection in connections.values():
            connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return outcomes


async def ask_once(connection: Connection, ask: Ask) -> Outcome:
    """Send one request and read its stream, as far as its client does."""
    outcome = Outcome(ask, begun=time.perf_counter())
    try:
        outcome.status = await connection.ask("POST", ask.path, ask.body())
        if outcome.status == 200:
            async with aclosing(connection.frames()) as frames:
                await _read(frames, outcome)
        else:
            outcome.error = f"{outcome.status}: {(await connection.body())[:200]!r}"
    except (Broken, OSError, ValueError, LookupError) as error:
        outcome.error = f"{type(error).__name__}: {error}"
    return outcome


async def _read(frames: AsyncIterator[dict[str, Any]], outcome: Outcome) -> None:
    """Read a stream to its end, or until its client leaves."""
    ask, count, ended = outcome.ask, 0, 0
    outcome.texts = [""] * ask.limits["n"]
    async for frame in frames:
        if "error" in frame:
            raise Broken(f"in the stream: {frame['error']}")
        count += 1
        if ask.fault == "leaves" and count == ask.patience:
            outcome.left = True
            return
        for choice in frame["choices"]:
            ended += choice["finish_reason"] is not None
            _take(outcome, choice)
        if usage := frame.get("usage"):
            outcome.tokens = usage["completion_tokens"]
        outcome.nfe += frame.get("dlm", {}).get("nfe", 0)
    outcome.last = time.perf_counter() - outcome.begun
    if ended != ask.limits["n"]:
        raise Broken(f"{ended} choices have ended, of {ask.limits['n']}")


def _take(outcome: Outcome, choice: Mapping[str, Any]) -> None:
    """Add the text of a frame; the one of `diffusing` replaces the former."""
    text = choice["text"] if "text" in choice else choice["delta"].get("content", "")
    if outcome.first is None and text:
        outcome.first = time.perf_counter() - outcome.begun
    whole = outcome.ask.form == "diffusing"
    former = "" if whole and text else outcome.texts[choice["index"]]
    outcome.texts[choice["index"]] = former + text


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of a load.

    seconds: from the first request to the last end
    requests: that were sent; `answered` of them to their end
    left, slow: by their clients' faults
    errors: of the server, in words
    tokens, nfe: of the answers that were read to their end
    first, last: seconds to the first text and to the end, at 50, 95 and 99 %
    """

    seconds: float
    requests: int
    answered: int
    left: int
    slow: int
    errors: tuple[str, ...]
    tokens: int
    nfe: int
    tokens_per_second: float
    first: tuple[float, ...]
    last: tuple[float, ...]


def figures_of(outcomes: Sequence[Outcome], seconds: float) -> Figures:
    """The figures of a load that took this long; latencies are of clients that read at once."""
    ended = [one for one in outcomes if one.last is not None and not one.error]
    quick = [one for one in ended if one.ask.fault != "slow"]
    tokens = sum(one.tokens for one in ended)
    return Figures(
        seconds=seconds,
        requests=len(outcomes),
        answered=len(ended),
        left=sum(one.left for one in outcomes),
        slow=sum(one.ask.fault == "slow" for one in outcomes),
        errors=tuple(one.error for one in outcomes if one.error),
        tokens=tokens,
        nfe=sum(one.nfe for one in ended),
        tokens_per_second=tokens / seconds,
        first=shares([one.first for one in quick if one.first is not None]),
        last=shares([one.last for one in quick if one.last is not None]),
    )


def shares(seconds: Sequence[float]) -> tuple[float, ...]:
    """The values at 50, 95 and 99 %."""
    return tuple(percentile(seconds, share) for share in (0.5, 0.95, 0.99))
