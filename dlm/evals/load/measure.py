"""Measure a server under load: for a while, beside its engine without HTTP, and at its end."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from statistics import median
from typing import Any, Final

import numpy as np

import dlm
from dlm.evals.load.clients import Outcome, figures_of, run_clients
from dlm.evals.load.mix import Ask, asks, plain_asks
from dlm.evals.load.process import LAG, ServerProcess, quantile, watch_memory

WARM: Final = 0.2
"""Share of a load in which memory may grow: pools and caches fill."""
SAMPLED: Final = 1.0
"""Seconds between two looks at the memory."""
SHOWN: Final = 10
"""One of this many looks is reported."""
REFUSED: Final = 503
DRAINED: Final = 100_000
"""Requests of a load that SIGTERM ends: more than there is time for."""


def soak(server: ServerProcess, *, seconds: float, clients: int, seed: int) -> dict[str, Any]:
    """A mixed load with faulty clients for a while; its figures, and what the server still holds.

    One short load before it makes what a first request makes.
    """
    asyncio.run(run_clients(server.address, iter(plain_asks(seed + 1, clients)), clients))
    time.sleep(SAMPLED)  # connections of it are closed
    before, held, cpu = server.metrics(), server.held(), server.cpu()
    memory: list[tuple[float, float]] = []
    begun, own = time.perf_counter(), time.process_time()

    async def load() -> list[Outcome]:
        watch = asyncio.create_task(watch_memory(server, SAMPLED, memory))
        try:
            return await run_clients(
                server.address, asks(seed), clients, lambda: time.perf_counter() < begun + seconds
            )
        finally:
            watch.cancel()

    outcomes = asyncio.run(load())
    took, used = time.perf_counter() - begun, server.cpu() - cpu
    own = time.process_time() - own
    after, kept = server.metrics(), server.held_at_rest(held)
    figures = figures_of(outcomes, took)
    return {
        **asdict(figures),
        "clients": clients,
        "lag": {str(s): quantile(before, after, LAG, s) for s in (0.5, 0.95, 0.99)},
        "server_cpu_per_token": used / max(figures.tokens, 1),
        "client_cpu": own,
        "memory": memory_figures(memory),
        "held_before": asdict(held),
        "held_after": asdict(kept),
    }


def memory_figures(samples: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """MiB at the beginning, after the warm part and at the end, and the MiB a minute of a line
    through what follows the warm part.
    """
    warm = [sample for sample in samples if sample[0] >= WARM * samples[-1][0]]
    times, sizes = np.array(warm).T
    slope = np.polyfit(times, sizes, 1)[0] * 60 if len(warm) > 2 else 0.0
    return {
        "first": samples[0][1],
        "warm": float(sizes[0]),
        "last": float(sizes[-1]),
        "most": max(size for _, size in samples),
        "growth_a_minute": float(slope),
        "samples": [(round(at, 1), round(size, 2)) for at, size in samples[::SHOWN]],
    }


@dataclass(frozen=True, slots=True)
class Round:
    """One way of answering some requests.

    cpu: seconds of the processors, of the process that decodes
    differing: answers whose text is another one than the engine's
    """

    way: str
    seconds: float
    cpu: float
    tokens: int
    nfe: int
    errors: int
    differing: int = 0

    @property
    def speed(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds

    @property
    def cpu_per_token(self) -> float:
        """Seconds of the processors."""
        return self.cpu / self.tokens


def engine_round(
    engine: dlm.Engine, asked: Sequence[Ask], in_flight: int
) -> tuple[Round, dict[int, list[str]]]:
    """Answer requests as `Engine.map` does, each with options of its own; the texts by number.

    in_flight: requests that are held at a time
    """
    begun, used = time.perf_counter(), time.process_time()
    waiting = iter(asked)
    live: list[tuple[Ask, dlm.Request]] = []
    texts: dict[int, list[str]] = {}
    tokens = nfe = 0
    while True:
        fresh = islice(waiting, in_flight - len(live))
        live += [(ask, ask.submit(engine)) for ask in fresh]
        if not live:
            break
        engine.step()
        for ask, request in live:
            if request.done:
                answer = request.result()
                choices = answer.choices or (answer,)
                texts[ask.number] = [choice.text or "" for choice in choices]
                tokens += sum(len(choice.ids) for choice in choices)
                nfe += sum(choice.stats.nfe for choice in choices)
        live = [entry for entry in live if not entry[1].done]
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    return Round("engine", seconds, cpu, tokens, nfe, 0), texts


def http_round(
    server: ServerProcess, asked: Sequence[Ask], clients: int, texts: dict[int, list[str]]
) -> Round:
    """Ask a server the same; `texts` are the engine's answers."""
    begun, used = time.perf_counter(), server.cpu()
    outcomes = asyncio.run(run_clients(server.address, iter(asked), clients))
    figures = figures_of(outcomes, time.perf_counter() - begun)
    return Round(
        way=f"http {clients}",
        seconds=figures.seconds,
        cpu=server.cpu() - used,
        tokens=figures.tokens,
        nfe=figures.nfe,
        errors=len(figures.errors),
        differing=sum(one.texts != texts[one.ask.number] for one in outcomes),
    )


def compare(
    server: ServerProcess,
    engine: dlm.Engine,
    *,
    rounds: int,
    requests: int,
    clients: int,
    alone: int,
    seed: int,
) -> dict[str, Any]:
    """The same requests through the engine and over HTTP in turn, and some of them one by one.

    alone: requests of one client
    """
    found: list[list[Round]] = []
    for number in range(rounds + 1):  # the first one warms up
        asked = plain_asks(seed + number, requests)
        one, texts = engine_round(engine, asked, clients)
        many = http_round(server, asked, clients, texts)
        single = http_round(server, asked[:alone], 1, texts)
        found.append([one, many, single])
    kept = found[1:]

    def ratio(of: Callable[[Round], float], way: int, base: int) -> float:
        return median(of(row[way]) / of(row[base]) for row in kept)

    return {
        "rounds": [asdict(one) for one in chain.from_iterable(kept)],
        "tokens_per_second": {
            row.way: median(rows[i].speed for rows in kept) for i, row in enumerate(kept[0])
        },
        "speed_of_http": ratio(lambda row: row.speed, 1, 0),
        "speed_of_many": ratio(lambda row: row.speed, 1, 2),
        "cpu_of_http": ratio(lambda row: row.cpu_per_token, 1, 0),
    }


def drain(server: ServerProcess, *, clients: int, seconds: float, seed: int) -> dict[str, Any]:
    """SIGTERM in the middle of a load, after some seconds of it and as many before its end: those
    that run end, and new ones are refused.
    """
    stopped = math.inf

    def is_open() -> bool:
        return time.perf_counter() < stopped + seconds

    async def load() -> list[Outcome]:
        nonlocal stopped
        asked = iter(plain_asks(seed, DRAINED))
        work = asyncio.create_task(run_clients(server.address, asked, clients, is_open))
        await asyncio.sleep(seconds)
        stopped = time.perf_counter()
        server.terminate()
        return await work

    outcomes = asyncio.run(load())
    code = server.wait()
    took = time.perf_counter() - stopped
    return {**_drained(outcomes, stopped), "exit_code": code, "seconds_to_exit": took}


def _drained(outcomes: Sequence[Outcome], stopped: float) -> dict[str, Any]:
    """The ends of what ran when a server was asked to stop, and of what came later."""
    new = [one for one in outcomes if one.begun >= stopped or one.status == REFUSED]
    old = [one for one in outcomes if one.begun < stopped and one.status != REFUSED]
    running = [one for one in old if one.last is None or one.begun + one.last >= stopped]
    return {
        "running_at_signal": len(running),
        "of_these_finished": sum(not one.error for one in running),
        "new": len(new),
        "of_these_503": sum(one.status == REFUSED for one in new),
        "of_these_connections_refused": sum("ConnectionRefused" in one.error for one in new),
        "errors": sorted({one.error for one in old if one.error}),
        "others": sorted({one.error for one in new if one.status != REFUSED}),
    }
