"""`Judge`: resources that graders share; `Marks`: the verdict on one answer."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as Late
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from importlib.util import find_spec
from multiprocessing import get_context
from types import MappingProxyType, TracebackType
from typing import Final, NamedTuple, Self

from dlm.errors import InvalidRequest, needs_extra
from dlm.evals.graders import mathverify
from dlm.sandbox import Sandbox, find_sandbox

VERIFYING: Final = frozenset({"maths-minerva2-v1", "maths-minerva3-v1", "maths-verified-v2"})
"""Graders that cannot do without `math-verify`."""


class Marks(NamedTuple):
    """Verdict on one answer.

    right: True if the answer is right
    scores: further scores of it, between 0 and 1
    note: rule by which the answer was found in the text
    """

    right: bool
    scores: Mapping[str, float] = MappingProxyType({})
    note: str = ""


@dataclass(slots=True)
class Judge:
    """Resources of graders: a sandbox for code, processes for `math-verify`.

    A context manager: leaving it ends the processes. Safe to use from several threads.
    """

    workers: int = 1
    sandbox: Sandbox | None = None
    _pool: ProcessPoolExecutor | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._restart(self._pool)

    def same_mathematics(
        self, text: str, reference: str, rule: mathverify.Rule = mathverify.judge
    ) -> bool | None:
        """Apply a rule of `mathverify` in a process of its own.

        None if `math-verify` is not installed; False if the comparison takes too long.
        """
        if find_spec("math_verify") is None:
            return None
        with self._lock:
            pool = self._pool = self._pool or ProcessPoolExecutor(
                self.workers, get_context("spawn")
            )
            future = pool.submit(rule, text, reference)
        try:
            return future.result(timeout=mathverify.SECONDS)
        except (Late, BrokenProcessPool):
            self._restart(pool)
            return False
        except ImportError:
            return None

    def require_same(
        self, text: str, reference: str, rule: mathverify.Rule = mathverify.judge
    ) -> bool:
        """The same for graders that cannot do without `math-verify`.

        Raises `InvalidRequest` if it is not installed.
        """
        same = self.same_mathematics(text, reference, rule)
        if same is None:
            raise _unverified()
        return same

    def _restart(self, pool: ProcessPoolExecutor | None) -> None:
        """End the processes of a pool: an answer that holds one up would hold it for ever."""
        with self._lock:
            if pool is None or self._pool is not pool:
                return
            self._pool = None
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)


def _unverified() -> InvalidRequest:
    return InvalidRequest("protocol", needs_extra("math-verify", "evals"))


def check_grader(name: str) -> None:
    """Raise `InvalidRequest` if a grader needs `math-verify` and that is not installed."""
    if name in VERIFYING and find_spec("math_verify") is None:
        raise _unverified()


def sandbox_for_code(kind: str = "best", *, allow_unsafe: bool = False) -> Sandbox:
    """Choose the sandbox in which a model's code runs.

    Raises `InvalidRequest` if nothing holds code that means harm, unless that was allowed.
    """
    box = find_sandbox() if kind == "best" else find_sandbox(kind)
    if not box.isolates and not allow_unsafe:
        raise InvalidRequest(
            "sandbox",
            "nothing but `rlimit` works here, which does not hold code that means harm: install "
            "bubblewrap, run in a container of its own, or say --allow-unsafe-code",
        )
    return box
