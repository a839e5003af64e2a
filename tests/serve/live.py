"""A server in a process of its own, on a real socket."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import httpx2
import psutil

from tests.serve.forked import Forked

STARTED = re.compile(r"dlm: serving on (http://\S+)")
PATIENCE = 300.0
"""Seconds that anything may take on a busy machine."""


class LiveServer:
    """`python -m dlm serve --port 0` with more flags, forked; a context manager.

    url: its address
    v1: the base address for clients
    """

    def __init__(self, folder: Path, *flags: str, env: dict[str, str] | None = None) -> None:
        self._log, self._out, self._told = folder / "log", folder / "out", 0
        command = ["serve", "--port", "0", "--device", "cpu", *flags]
        with self._log.open("wb") as log, self._out.open("wb") as out:
            self.process = Forked("dlm", command, {"OMP_NUM_THREADS": "1", **(env or {})}, out, log)
        self.url = self._address()
        self.v1 = f"{self.url}/v1"
        self._seen = psutil.Process(self.process.pid)

    def _address(self) -> str:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if found := STARTED.search(self._out.read_text()):
                return found[1]
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.close()
        raise AssertionError(f"the server has not started: {self.log()[-2000:]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop it as an operator does, and by force if that does not work."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def log(self) -> str:
        """All that it has written to its log."""
        return self._log.read_text()

    def faults(self) -> list[str]:
        """The ends of the tracebacks that its log has gained since the last call."""
        text = self._log.read_text()
        fresh, self._told = text[self._told :], len(text)
        return [line[-500:] for line in fresh.splitlines() if "traceback" in line.lower()]

    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        times = self._seen.cpu_times()
        return times.user + times.system

    def memory(self) -> int:
        """Bytes that it holds in memory."""
        return int(self._seen.memory_info().rss)

    def text(self, path: str) -> str:
        """The text at a path."""
        return httpx2.get(self.url + path, timeout=PATIENCE).text

    def status(self, path: str) -> int:
        """The status of a path."""
        return httpx2.get(self.url + path, timeout=PATIENCE).status_code

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        return httpx2.get(self.url + path, timeout=PATIENCE).json()

    def post(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        """The response to a body, given as bytes or as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = {"Content-Type": "application/json", **headers}
        return httpx2.post(self.url + path, content=data, headers=head, timeout=PATIENCE)

    def until_idle(self) -> None:
        """Wait until nothing runs or waits."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            load = self.get("/load")
            if load["running"] == load["waiting"] == 0:
                return
            time.sleep(0.02)
        raise AssertionError(f"something still runs: {load}")


def frames(lines: Any) -> list[Any]:
    """The JSON of the events of a stream up to [DONE], which must be its last one."""
    found: list[Any] = []
    for line in filter(None, lines):
        assert "[DONE]" not in found, "something follows the end"
        if line.startswith("data: "):
            data = line.removeprefix("data: ")
            found.append(data if data == "[DONE]" else json.loads(data))
        else:
            assert line.startswith((":", "event: ")), line
    assert found.pop() == "[DONE]"
    return found
