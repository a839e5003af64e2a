"""Servers in processes of their own, on real sockets, for tests."""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.serve.forked import ROOT, Forked

PATIENCE = 600
"""Seconds after which a wait is given up: a machine may be busy, but not that busy."""


class Process:
    """A running server: its URL, the lines of its output, and its end."""

    def __init__(self, start):
        self.out, self.err = queue.Queue(), queue.Queue()
        self._threads, writers = [], []
        for lines in (self.out, self.err):
            reader, writer = os.pipe()
            writers.append(os.fdopen(writer, "w"))
            given = os.fdopen(reader), lines
            self._threads.append(threading.Thread(target=_collect, args=given, daemon=True))
        self.process = start(*writers)
        for writer in writers:
            writer.close()
        for thread in self._threads:
            thread.start()
        line = self.out.get(timeout=PATIENCE)
        assert line is not None, f"it ended: {self.rest(self.err)}"
        assert line.startswith("dlm: serving on http://"), line
        self.url = line.split()[-1]

    def connect(self):
        """A plain connection to it."""
        address = urlsplit(self.url)
        return socket.create_connection((address.hostname, address.port), timeout=PATIENCE)

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def ended(self):
        """Its exit code and what it has written to stderr, when it has ended."""
        code = self.process.wait(PATIENCE)
        for thread in self._threads:
            thread.join(PATIENCE)
        return code, self.rest(self.err)

    def logged(self, message):
        """Wait for a line of its log; the line."""
        while (line := self.err.get(timeout=PATIENCE)) is not None:
            if line.startswith("{") and (record := json.loads(line))["message"] == message:
                return record
        raise AssertionError(f"it ended without saying {message!r}")

    @staticmethod
    def rest(lines):
        found = []
        while not lines.empty():
            found.append(lines.get())
        return "\n".join(line for line in found if line is not None)


def _collect(stream, lines):
    with stream:
        for line in stream:
            lines.put(line.rstrip("\n"))
    lines.put(None)


@contextmanager
def running(*arguments, module="dlm", environment=None, forked=False):
    """A server that `python -m module ...` starts; it is killed in the end.

    forked: with everything imported
    """
    environment, arguments = environment or {}, [*map(str, arguments)]

    def start(out, err):
        if forked:
            return Forked(module, arguments, environment, out, err)
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )

    server = Process(start)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
