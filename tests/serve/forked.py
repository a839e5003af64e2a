"""Processes that begin with everything imported: they start in tenths of a second, not in two.

Each is a fork of a process that has imported the server's modules and done nothing else.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["dlm.cli.serve", "dlm.serve.app", "tests.serve.small_server"])


class Forked:
    """`python -m module arguments` in the project's folder; `subprocess.Popen` as tests use it.

    environment: variables that it has besides those of this process
    out, err: open files for the texts that it writes
    """

    def __init__(self, module, arguments, environment, out, err):
        streams = [Connection(os.dup(file.fileno()), readable=False) for file in (out, err)]
        given = (module, [*map(str, arguments)], {**os.environ, **environment}, *streams)
        self._process = CONTEXT.Process(target=_work, args=given, daemon=True)
        self._process.start()
        for stream in streams:
            stream.close()
        self.pid = self._process.pid

    def poll(self):
        """Its exit code, or None."""
        return self._process.exitcode

    def wait(self, timeout=None):
        """Wait for its end; the exit code. Raises `subprocess.TimeoutExpired`."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked process", timeout)
        return self._process.exitcode

    def send_signal(self, number):
        """Send a signal, unless it has ended."""
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def terminate(self):
        """Ask it to end."""
        self._process.terminate()

    def kill(self):
        """End it by force."""
        self._process.kill()


def _work(module, arguments, environment, out, err):
    """The whole life of the process."""
    for stream, number in ((out, 1), (err, 2)):
        os.dup2(stream.fileno(), number)
        stream.close()
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    if threads := environment.get("OMP_NUM_THREADS"):  # read when torch was imported
        torch.set_num_threads(int(threads))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
