"""Is a function, or a program with its tests, right?"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any

from dlm.sandbox.backends import Sandbox
from dlm.sandbox.running import Outcome, SandboxError, Verdict, run_python


def check_function(
    source: str,
    entry: str,
    tests: Sequence[tuple[Any, Any]],
    *,
    timeout_s: float = 5.0,
    memory_mb: int = 512,
    sandbox: Sandbox | None = None,
) -> bool:
    """Whether the function `entry` of a program maps each test's input to its expected value.

    `tests` are (input, expected) pairs of JSON values. The results come back after a random nonce
    and are compared here: the expected values never enter the sandbox, so that a program can pass
    neither by printing a verdict nor by reading one. Raises `SandboxError` where the sandbox fails.
    """
    assert entry.isidentifier(), f"`entry` must be an identifier, got {entry!r}"
    nonce = secrets.token_hex(16)
    inputs = json.dumps([given for given, _ in tests])
    harness = (
        f"\nimport json as json_{nonce}\n"
        f"results_{nonce} = [{entry}(given) for given in json_{nonce}.loads({inputs!r})]\n"
        f"print('\\n{nonce}' + repr(results_{nonce}))\n"
    )
    result = run_python(source + harness, timeout_s=timeout_s, memory_mb=memory_mb, sandbox=sandbox)
    _must_have_begun(result)
    expected = nonce + repr([value for _, value in tests])
    return result.ok and result.stdout.rstrip("\n").rsplit("\n", 1)[-1] == expected


def check_program(
    source: str,
    tests: str,
    *,
    timeout_s: float = 10.0,
    memory_mb: int = 1024,
    sandbox: Sandbox | None = None,
) -> Outcome:
    """How a program ends together with the code that tests it, as HumanEval and MBPP do.

    It has passed when all of that has run to its end: a program that leaves before its tests is
    `unfinished`, whatever it prints and whichever exit code it chooses. Raises `SandboxError` where
    the sandbox fails.
    """
    whole = f"{source}\n{tests}\n"
    result = run_python(whole, timeout_s=timeout_s, memory_mb=memory_mb, sandbox=sandbox)
    _must_have_begun(result)
    return result


def _must_have_begun(result: Outcome) -> None:
    """Raise `SandboxError` for a program that was never run."""
    if result.verdict == Verdict.SANDBOX:
        raise SandboxError(f"the sandbox has failed: {result.detail}")
