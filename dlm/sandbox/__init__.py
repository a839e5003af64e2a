"""Runs untrusted Python, and the code that tests it, for graders and verifiers.

Three ways, the strongest that works here is taken: `bwrap` (bubblewrap: namespaces of its own, no
network, nothing of the machine but `/usr` and numpy, a system call filter), `unshare` (namespaces
and another user; needs root), `rlimit` (a separate process in an empty folder with limits, which
stops runaway model output but no attacker: it can read what is readable and open sockets). In all
of them a program has an empty stdin, a minimal environment, limits on time, memory, file sizes and
processes, and is killed with its process group. The folder of `dlm`, which holds the solutions of
benchmarks, is hidden under `bwrap` and `unshare`, but other files of the machine that every user
may read are visible under `unshare`; under `rlimit` nothing readable can be hidden, those solutions
neither.

Nothing that a program does makes it pass. Its tests run in a second process, in a sandbox of
its own, which has the only pipe for verdicts; that process asks the program's for the names that
the tests do not define, takes plain data from it and makes every comparison itself. Under `rlimit`
the kernel's Landlock keeps the program from looking into any other process, and where root starts
them both are users of their own; without either, a program that attacks the process that grades,
which runs as the same user, is held by the other two ways alone.
"""

from dlm.sandbox.backends import KINDS, Sandbox, best_sandbox, find_sandbox
from dlm.sandbox.checks import check_function, check_program
from dlm.sandbox.processes import OUTPUT_BYTES
from dlm.sandbox.running import Outcome, SandboxError, Verdict, run_python

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
