"""Judging: an item, a text, and what the item's grader makes of them."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as Late
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from importlib.util import find_spec
from multiprocessing import get_context
from types import MappingProxyType, TracebackType
from typing import Final, NamedTuple, Self

from dlm.errors import InvalidRequest
from dlm.evals.graders import mathverify
from dlm.evals.graders.arithmetic import chain_reaches, countdown_expression, reaches
from dlm.evals.graders.code import cut_at, extract, sanitized
from dlm.evals.graders.grid import grid_of, is_solved, is_valid, right_cells
from dlm.evals.graders.maths import boxed_answer, boxed_or_tagged, equivalent
from dlm.evals.graders.minerva import minerva_form, minerva_said
from dlm.evals.graders.numbers import (
    boxed_number,
    flexible_number,
    said_number,
    same_number,
    strict_number,
)
from dlm.evals.items import Item
from dlm.sandbox import Sandbox, Verdict, check_program, find_sandbox

LOG: Final = logging.getLogger(__name__)
ENTRY: Final = re.compile(r"assert\s+(?:\w+\()*?(\w+)\(")
WRAPPERS: Final = frozenset({"set", "sorted", "list", "tuple", "len", "abs", "round", "math"})


class Marks(NamedTuple):
    """Whether an answer is right, further scores of it between 0 and 1, and how it was found."""

    right: bool
    scores: Mapping[str, float] = MappingProxyType({})
    note: str = ""


@dataclass(slots=True)
class Judge:
    """What graders need beyond the text: a sandbox for code, processes for `math-verify`.

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

    def marks(self, item: Item, text: str) -> Marks | None:
        """What the item's grader says of a text; never raises for what a text holds.

        None where it cannot tell for a reason that is not the text's: the sandbox has failed.
        """
        grader = item.meta.get("grader")
        return Marks(item.grade(text)) if grader is None else GRADERS[grader](item, text, self)

    def same_mathematics(self, text: str, reference: str) -> bool | None:
        """What `math-verify` says; None where it is not installed."""
        if find_spec("math_verify") is None:
            return None
        with self._lock:
            pool = self._pool = self._pool or ProcessPoolExecutor(
                self.workers, get_context("spawn")
            )
            future = pool.submit(mathverify.judge, text, reference)
        try:
            return future.result(timeout=mathverify.SECONDS)
        except (Late, BrokenProcessPool):
            self._restart(pool)
            return False

    def _restart(self, pool: ProcessPoolExecutor | None) -> None:
        """End the processes of a pool: an answer that holds one up would hold it for ever."""
        with self._lock:
            if pool is None or self._pool is not pool:
                return
            self._pool = None
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)


Grade = Callable[[Item, str, Judge], Marks | None]


def place_of(kind: str) -> Sandbox | None:
    """Where a run's code was run before, and may be again; None where it ran none."""
    return find_sandbox(kind) if kind else None


def place_for_code(kind: str = "best", *, allow_unsafe: bool = False) -> Sandbox:
    """Where code of a model is to run.

    Raises `InvalidRequest` where nothing holds code that means harm, unless that was allowed.
    """
    box = find_sandbox() if kind == "best" else find_sandbox(kind)
    if not box.isolates and not allow_unsafe:
        raise InvalidRequest(
            "sandbox",
            "nothing but `rlimit` works here, which does not hold code that means harm: install "
            "bubblewrap, run in a container of its own, or say --allow-unsafe-code",
        )
    return box


# code


def _run(source: str, item: Item, judge: Judge, rule: str) -> Marks | None:
    outcome = check_program(source, item.meta["tests"], sandbox=judge.sandbox)
    if outcome.verdict == Verdict.SANDBOX:
        LOG.error("%s is not judged, the sandbox has failed: %s", item.id, outcome.detail)
        return None
    return Marks(outcome.ok, note=f"{rule}: {outcome.verdict}")


def humaneval(item: Item, text: str, judge: Judge) -> Marks | None:
    """The function as `code-v1` finds it."""
    if not text.strip():
        return Marks(False, note="empty")
    program = extract(text, item.meta["entry"], item.meta["code"])
    return _run(program.source, item, judge, program.rule)


def humaneval_prefilled(item: Item, text: str, judge: Judge) -> Marks | None:
    """The body that goes on with the prompt, up to the end of the fence."""
    body = cut_at(text, ("```",))
    return _run(item.meta["code"] + body + "\n", item, judge, "prefilled")


def humaneval_dream(item: Item, text: str, judge: Judge) -> Marks | None:
    """The program as `dream-v1` cleans it."""
    program = sanitized(text, item.meta["entry"], item.meta["code"])
    return _run(program.source, item, judge, program.rule)


def mbpp_prefilled(item: Item, text: str, judge: Judge) -> Marks | None:
    """The program up to the end of the fence that the prompt has opened."""
    return _run(cut_at(text, ("```",)) + "\n", item, judge, "prefilled")


def mbpp(item: Item, text: str, judge: Judge) -> Marks | None:
    """The program as `code-v1` finds it, without the marks that MBPP's prompts ask for."""
    body = cut_at(text, ("[DONE]",)).replace("[BEGIN]", "")
    if not body.strip():
        return Marks(False, note="empty")
    called = [name for name in ENTRY.findall(item.meta["tests"]) if name not in WRAPPERS]
    program = extract(body, called[0] if called else None, stops=())
    return _run(program.source, item, judge, program.rule)


# mathematics


def _maths(found: str | None, item: Item, text: str, judge: Judge) -> Marks:
    right = equivalent(found, item.meta["reference"])
    lenient = judge.same_mathematics(text, item.meta["reference"])
    scores = {} if lenient is None else {"math_verify": float(lenient)}
    return Marks(right, scores, "" if found is not None else "no box")


def maths_boxed(item: Item, text: str, judge: Judge) -> Marks:
    """`boxed-v1` and the MATH dataset's equivalence; `math_verify` beside it."""
    return _maths(boxed_answer(text), item, text, judge)


def maths_d1(item: Item, text: str, judge: Judge) -> Marks:
    """`d1-v1` and the same equivalence."""
    return _maths(boxed_or_tagged(text), item, text, judge)


def maths_minerva(item: Item, text: str, judge: Judge) -> Marks:
    """`minerva-v1`: what the final answer is said to be, in Minerva's normal form; where two forms
    differ, `math-verify` says whether they are the same.
    """
    said, reference = minerva_said(text), minerva_form(item.meta["reference"])
    found = None if said is None else minerva_form(said)
    right = found == reference or (
        bool(found) and bool(judge.same_mathematics(f"${found}$", reference))
    )
    lenient = judge.same_mathematics(text, item.meta["reference"])
    scores = {} if lenient is None else {"math_verify": float(lenient)}
    return Marks(right, scores, "" if said is not None else "no final answer")


def gsm8k_boxed(item: Item, text: str, judge: Judge) -> Marks:
    """The number in the last box, else the last number anywhere."""
    reference, found = item.meta["reference"], boxed_answer(text)
    answer = flexible_number(text) if found is None else flexible_number(found)
    return Marks(same_number(answer, reference), note="" if found is not None else "no box")


def gsm8k_flexible(item: Item, text: str, judge: Judge) -> Marks:
    """The last number; `strict` counts those behind `####` alone."""
    reference = item.meta["reference"]
    strict = same_number(strict_number(text), reference)
    return Marks(same_number(flexible_number(text), reference), {"strict": float(strict)})


def gsm8k_chain(item: Item, text: str, judge: Judge) -> Marks:
    """The last number; `strict` counts those in `The answer is N.` alone."""
    reference = item.meta["reference"]
    strict = same_number(said_number(text), reference)
    return Marks(same_number(flexible_number(text), reference), {"strict": float(strict)})


def gsm8k_d1(item: Item, text: str, judge: Judge) -> Marks:
    """`d1-gsm8k-v1`, compared as numbers."""
    return Marks(boxed_number(text) == float(item.meta["reference"].replace(",", "")))


# puzzles


def countdown_d1(item: Item, text: str, judge: Judge) -> Marks:
    """An expression of the numbers that comes to the target."""
    expression = countdown_expression(text)
    return Marks(reaches(expression, item.meta["numbers"], item.meta["target"]))


def countdown_chains(item: Item, text: str, judge: Judge) -> Marks:
    """Equations with commas between them, each true, that use up the numbers."""
    line = text.strip().split("\n")[0]
    return Marks(chain_reaches(line, item.meta["numbers"], item.meta["target"]))


def sudoku_d1(item: Item, text: str, judge: Judge) -> Marks:
    """Right is the whole puzzle; `cells` is the share of empty cells, which d1 reports."""
    puzzle, solution = item.meta["puzzle"], item.meta["solution"]
    grid = grid_of(text)
    right, empty = right_cells(grid, puzzle, solution)
    return Marks(is_solved(grid, puzzle, solution), {"cells": right / max(1, empty)})


def sudoku_grid(item: Item, text: str, judge: Judge) -> Marks:
    """Any grid of four lines that keeps the given cells and every rule, as Dream counts."""
    lines = text.split("\n\n")[0].replace(" ", "").strip()
    return Marks(is_valid(lines, item.meta["puzzle"]))


GRADERS: Final[Mapping[str, Grade]] = MappingProxyType(
    {
        "humaneval-code-v1": humaneval,
        "humaneval-prefilled-v1": humaneval_prefilled,
        "humaneval-dream-v1": humaneval_dream,
        "mbpp-code-v1": mbpp,
        "mbpp-prefilled-v1": mbpp_prefilled,
        "maths-boxed-v1": maths_boxed,
        "maths-d1-v1": maths_d1,
        "maths-minerva-v1": maths_minerva,
        "gsm8k-boxed-v1": gsm8k_boxed,
        "gsm8k-flexible-v1": gsm8k_flexible,
        "gsm8k-chain-v1": gsm8k_chain,
        "gsm8k-d1-v1": gsm8k_d1,
        "countdown-d1-v1": countdown_d1,
        "countdown-chains-v1": countdown_chains,
        "sudoku-d1-v1": sudoku_d1,
        "sudoku-grid-v1": sudoku_grid,
    }
)
"""Rules with their versions, as run headers name them."""
