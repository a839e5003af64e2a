"""A server of its own process, as a user starts it, and what it costs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Self
from urllib.parse import urlsplit

import psutil
from prometheus_client.parser import text_string_to_metric_families

READY: Final = "dlm: serving on "
PATIENCE: Final = 60.0
"""Seconds that a server has to start, to end, or to let go of what it holds."""
LAG: Final = "dlm:event_loop_lag_seconds"


@dataclass(frozen=True, slots=True)
class Held:
    """Things that a server holds while nothing runs.

    running, waiting: rows
    kv_usage: share of the pages
    tasks: of the event loop
    threads, files: of the process
    """

    running: int
    waiting: int
    kv_usage: float
    tasks: int
    threads: int
    files: int


class ServerProcess:
    """`dlm serve` on a free port of this machine; a context manager that ends it.

    arguments: of the command, besides the port
    log: file for what it writes

    Raises `RuntimeError` when it does not start.
    """

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        command = [sys.executable, "-m", "dlm", "serve", "--port", "0", *arguments]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=file, env=environment, text=True
            )
        assert self._process.stdout is not None
        self.url = self._url(self._process.stdout)
        self._watched = psutil.Process(self._process.pid)

    def _url(self, output: IO[str]) -> str:
        for line in output:
            if line.startswith(READY):
                return line.removeprefix(READY).strip()
        raise RuntimeError(f"the server has ended with code {self._process.wait()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 0

    def cpu(self) -> float:
        """Seconds of all processors that it has used."""
        times = self._watched.cpu_times()
        return float(times.user + times.system)

    def memory(self) -> float:
        """Resident MiB."""
        return float(self._watched.memory_info().rss) / 2**20

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait for its end; the exit code. Raises `subprocess.TimeoutExpired`."""
        return self._process.wait(PATIENCE)

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a page."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as answer:
                return int(answer.status), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def metrics(self) -> dict[tuple[str, str], float]:
        """The values of `/metrics` by name and by the bound of a bucket, others' labels summed."""
        found: dict[tuple[str, str], float] = {}
        for family in text_string_to_metric_families(self.get("/metrics")[1].decode()):
            for sample in family.samples:
                key = sample.name, sample.labels.get("le", "")
                found[key] = found.get(key, 0.0) + sample.value
        return found

    def held(self) -> Held:
        """The rows, pages and memory it holds now; the one request that asks does not count."""
        values = self.metrics()
        return Held(
            running=round(values["dlm:num_requests_running", ""]),
            waiting=round(values["dlm:num_requests_waiting", ""]),
            kv_usage=values["dlm:kv_cache_usage_perc", ""],
            tasks=round(values["dlm:event_loop_tasks", ""]),
            threads=self._watched.num_threads(),
            files=self._watched.num_fds(),
        )

    def held_at_rest(self, before: Held) -> Held:
        """The same once it is as before a load, or after some patience."""
        until = time.monotonic() + PATIENCE / 6
        while (now := self.held()).tasks > before.tasks and time.monotonic() < until:
            time.sleep(0.2)
        return now


def quantile(
    before: Mapping[tuple[str, str], float],
    after: Mapping[tuple[str, str], float],
    name: str,
    share: float,
) -> float:
    """A quantile of what a histogram has seen between two readings, linear inside of buckets.

    The highest finite bound where it lies beyond it, and 0 where nothing was seen.
    """
    bucket = f"{name}_bucket"
    counts = sorted(
        (float(bound), value - before.get((found, bound), 0.0))
        for (found, bound), value in after.items()
        if found == bucket
    )
    low, seen, wanted = 0.0, 0.0, share * counts[-1][1] if counts else 0.0
    for high, total in counts:
        if total >= wanted and total > seen:
            part = (wanted - seen) / (total - seen)
            return low if high == float("inf") else low + part * (high - low)
        low, seen = high, total
    return 0.0


async def watch_memory(
    server: ServerProcess, every: float, samples: list[tuple[float, float]]
) -> None:
    """Add the seconds since now and the resident MiB of a server, again and again."""
    begun = time.perf_counter()
    while True:
        samples.append((time.perf_counter() - begun, server.memory()))
        await asyncio.sleep(every)
