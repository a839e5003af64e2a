"""Runs untrusted Python in a process of its own, for graders and verifiers.

Three ways, the strongest that works here is taken: `bwrap` (bubblewrap: namespaces of its own, no
network, nothing of the machine but `/usr`, a system call filter), `unshare` (namespaces and another
user; needs root), `rlimit` (a separate process in an empty folder with limits, which stops runaway
model output but no attacker: it can read what is readable and open sockets). In all of them a
program has a minimal environment, limits on time, memory, file sizes and processes, and is killed
with its process group; what it prints proves nothing, only what the harness says after it does.
"""

from dlm.sandbox.backends import KINDS, Sandbox, best_sandbox, find_sandbox
from dlm.sandbox.checks import check_function, check_program
from dlm.sandbox.running import OUTPUT_BYTES, Outcome, SandboxError, Verdict, run_python

__all__ = [
    "KINDS",
    "OUTPUT_BYTES",
    "Outcome",
    "Sandbox",
    "SandboxError",
    "Verdict",
    "best_sandbox",
    "check_function",
    "check_program",
    "find_sandbox",
    "run_python",
]
