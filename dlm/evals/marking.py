"""Marking: what an item's grader makes of a text; every rule has a version."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from dlm.errors import InvalidRequest
from dlm.evals.graders.arithmetic import chain_reaches, countdown_expression, reaches
from dlm.evals.graders.code import cut_at, extract, sanitized
from dlm.evals.graders.grid import grid_of, is_solved, is_valid, right_cells
from dlm.evals.graders.maths import boxed_answer, boxed_or_tagged, equivalent, last_box
from dlm.evals.graders.minerva import minerva_form, minerva_said
from dlm.evals.graders.numbers import (
    boxed_number,
    flexible_number,
    said_number,
    same_number,
    strict_number,
)
from dlm.evals.graders.opencompass import first_fence, last_number, program_between, same_integer
from dlm.evals.items import Item
from dlm.evals.judging import Judge, Marks
from dlm.sandbox import SandboxError, check_program

LOG: Final = logging.getLogger(__name__)
FIRST_DEFINED: Final = re.compile(r"def\s+(\w+)\s*\(")
NOUGHTS: Final = re.compile(r"(?<=\d)\.0+(?!\d)")
ENTRY: Final = re.compile(r"assert\s+(?:\w+\()*?(\w+)\(")
WRAPPERS: Final = frozenset({"set", "sorted", "list", "tuple", "len", "abs", "round", "math"})

Grade = Callable[[Item, str, Judge], Marks]


def mark(item: Item, text: str, judge: Judge) -> Marks | None:
    """What the item's grader says of a text; never raises for what a text holds.

    None where it cannot tell for a reason that is not the text's: the sandbox has failed.
    """
    grader = item.meta.get("grader")
    try:
        return Marks(item.grade(text)) if grader is None else GRADERS[grader](item, text, judge)
    except SandboxError as error:
        LOG.error("%s is not judged: %s", item.id, error)
        return None


# code


def _run(source: str, item: Item, judge: Judge, rule: str) -> Marks:
    outcome = check_program(source, item.meta["tests"], sandbox=judge.sandbox)
    return Marks(outcome.ok, note=f"{rule}: {outcome.verdict}")


def humaneval_raw(item: Item, text: str, judge: Judge) -> Marks:
    """The text as it goes on with the prompt."""
    return _run(item.meta["code"] + text + "\n", item, judge, "raw")


def humaneval_opencompass(item: Item, text: str, judge: Judge) -> Marks:
    """The first closed fence, or the text, behind the prompt."""
    return _run(item.meta["code"] + first_fence(text) + "\n", item, judge, "first fence")


def humaneval_dream(item: Item, text: str, judge: Judge) -> Marks:
    """The program as `dream-v1` cleans it."""
    program = sanitized(text, item.meta["entry"], item.meta["code"])
    return _run(program.source, item, judge, program.rule)


def mbpp_prefilled(item: Item, text: str, judge: Judge) -> Marks:
    """The program up to the end of the fence that the prompt has opened."""
    return _run(cut_at(text, ("```",)) + "\n", item, judge, "prefilled")


def mbpp_raw(item: Item, text: str, judge: Judge) -> Marks:
    """The text before `[DONE]`."""
    return _run(cut_at(text, ("[DONE]",)) + "\n", item, judge, "raw")


def mbpp_dream(item: Item, text: str, judge: Judge) -> Marks:
    """The program as `dream-v1` cleans it; its function is the first one of the reference."""
    defined = FIRST_DEFINED.search(item.answer)
    program = sanitized(text, defined[1] if defined else "", item.meta["text"])
    return _run(program.source, item, judge, program.rule)


def mbpp_opencompass(item: Item, text: str, judge: Judge) -> Marks:
    """The program between OpenCompass' marks."""
    return _run(program_between(text) + "\n", item, judge, "between marks")


def mbpp(item: Item, text: str, judge: Judge) -> Marks:
    """The program as `code-v1` finds it, without the marks that MBPP's prompts ask for."""
    body = cut_at(text, ("[DONE]",)).replace("[BEGIN]", "")
    if not body.strip():
        return Marks(False, note="empty")
    called = [name for name in ENTRY.findall(item.meta["tests"]) if name not in WRAPPERS]
    program = extract(body, called[0] if called else None)
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


def maths_verified(item: Item, text: str, judge: Judge) -> Marks:
    """Whatever `math-verify` takes for the reference; `boxed` beside it.

    Raises `InvalidRequest` where `math-verify` is not installed.
    """
    reference = item.meta["reference"]
    right = judge.same_mathematics(text, reference)
    if right is None:
        raise InvalidRequest("protocol", "judges by math-verify: `pip install dlm[evals]`")
    return Marks(right, {"boxed": float(equivalent(boxed_answer(text), reference))})


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
    """What stands in the last box, as mathematics; noughts behind a point do not count."""
    found = last_box(text)
    answer = None if found is None else NOUGHTS.sub("", found.replace(",", ""))
    right = equivalent(answer, item.meta["reference"].replace(",", ""))
    return Marks(right, note="" if found is not None else "no box")


def gsm8k_opencompass(item: Item, text: str, judge: Judge) -> Marks:
    """The last number, as a number."""
    return Marks(same_integer(last_number(text), item.meta["reference"]))


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
        "humaneval-dream-v1": humaneval_dream,
        "humaneval-opencompass-v1": humaneval_opencompass,
        "humaneval-raw-v1": humaneval_raw,
        "mbpp-code-v1": mbpp,
        "mbpp-dream-v1": mbpp_dream,
        "mbpp-opencompass-v1": mbpp_opencompass,
        "mbpp-prefilled-v1": mbpp_prefilled,
        "mbpp-raw-v1": mbpp_raw,
        "maths-boxed-v1": maths_boxed,
        "maths-d1-v1": maths_d1,
        "maths-minerva-v1": maths_minerva,
        "maths-verified-v1": maths_verified,
        "gsm8k-boxed-v2": gsm8k_boxed,
        "gsm8k-opencompass-v1": gsm8k_opencompass,
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
