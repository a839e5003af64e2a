"""Is a function, or a program with its tests, right?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from dlm.sandbox.backends import Sandbox
from dlm.sandbox.running import Outcome, SandboxError, Verdict, run_python

CASES: Final = """
import json

def same(found, wanted):
    if type(found) is not type(wanted):
        return False
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(same(found[k], wanted[k]) for k in wanted)
    return repr(found) == repr(wanted)

for given, wanted in json.loads({cases!r}):
    assert same(entry(given), wanted)
"""
"""What tests a function, by the name `entry`: every other name here is the tests' own."""


def check_function(
    source: str,
    entry: str,
    tests: Sequence[tuple[Any, Any]],
    *,
    timeout_s: float = 5.0,
    memory_mb: int = 512,
    sandbox: Sandbox | None = None,
) -> bool:
    """True if the function `entry` of a program maps each test's input to its expected value.

    `tests` are (input, expected) pairs of JSON values; a result must be equal and of the same types
    at every depth. The program itself must define `entry`, and none of its other names counts. The
    expected values never enter the process of the program. Raises `SandboxError` if the sandbox
    fails.
    """
    assert entry.isidentifier(), f"`entry` must be an identifier, got {entry!r}"
    cases = CASES.format(cases=json.dumps([list(test) for test in tests]))
    result = run_python(
        source,
        tests=cases,
        entry=entry,
        timeout_s=timeout_s,
        memory_mb=memory_mb,
        sandbox=sandbox,
    )
    _must_have_begun(result)
    return result.ok


def check_program(
    source: str,
    tests: str,
    *,
    timeout_s: float = 10.0,
    memory_mb: int = 4096,
    sandbox: Sandbox | None = None,
) -> Outcome:
    """Run a program together with the code that tests it, as HumanEval and MBPP do.

    It has passed when the tests, which run where it cannot reach, have come to their end: a program
    that leaves before is `unfinished`, whatever it prints and whichever exit code it chooses. The
    memory is EvalPlus'. Raises `SandboxError` if the sandbox fails.
    """
    result = run_python(
        source, tests=tests, timeout_s=timeout_s, memory_mb=memory_mb, sandbox=sandbox
    )
    _must_have_begun(result)
    return result


def _must_have_begun(result: Outcome) -> None:
    """Raise `SandboxError` for a program that was never run."""
    if result.verdict == Verdict.SANDBOX:
        raise SandboxError(f"the sandbox has failed: {result.detail}")
