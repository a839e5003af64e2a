"""The rules by name and version, and `grade`, which applies the one that an item names."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from dlm.evals.graders.arithmetic import chain_reaches, countdown_expression, reaches
from dlm.evals.graders.code import cut_at, sanitized
from dlm.evals.graders.grid import grid_of, is_solved, is_valid, right_cells
from dlm.evals.graders.judge import Judge, Marks
from dlm.evals.graders.maths import boxed_answer, boxed_or_tagged, equivalent
from dlm.evals.graders.mathverify import (
    judge_boxed,
    judge_normal,
    judge_solution,
    same_by_sympy,
)
from dlm.evals.graders.minerva import minerva_form, minerva_said
from dlm.evals.graders.numbers import (
    boxed_number,
    flexible_number,
    said_number,
    same_number,
    strict_number,
)
from dlm.evals.graders.opencompass import (
    dinfer_program,
    first_fence,
    last_number,
    program_between,
    same_integer,
)
from dlm.evals.graders.opencompass_maths import found_answer, same_answer
from dlm.evals.items import Item
from dlm.sandbox import SandboxError, check_program
from dlm.sandbox.programs import extract

LOG: Final = logging.getLogger(__name__)
FIRST_DEFINED: Final = re.compile(r"def\s+(\w+)\s*\(")
ENTRY: Final = re.compile(r"assert\s+(?:\w+\()*?(\w+)\(")
WRAPPERS: Final = frozenset({"set", "sorted", "list", "tuple", "len", "abs", "round", "math"})

Grade = Callable[[Item, str, Judge], Marks]


def grade(item: Item, text: str, judge: Judge) -> Marks | None:
    """Grade a text by the rule that the item names, or else by its task; no text raises.

    None if the sandbox has failed, which is not the text's fault.
    """
    rule = item.meta.get("grader")
    try:
        return Marks(item.grade(text)) if rule is None else GRADERS[rule](item, text, judge)
    except SandboxError as error:
        LOG.error("%s is not judged: %s", item.id, error)
        return None


# code


def _run(source: str, item: Item, judge: Judge, rule: str) -> Marks:
    outcome = check_program(source, item.meta["tests"], sandbox=judge.sandbox)
    return Marks(outcome.ok, note=f"{rule}: {outcome.verdict}")


def humaneval_raw(item: Item, text: str, judge: Judge) -> Marks:
    """The prompt continued by the text."""
    return _run(item.meta["code"] + text + "\n", item, judge, "raw")


def humaneval_opencompass(item: Item, text: str, judge: Judge) -> Marks:
    """The prompt continued by the first closed fence, or by the text."""
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
    program = sanitized(text, defined[1] if defined else None, item.meta["text"])
    return _run(program.source, item, judge, program.rule)


def mbpp_opencompass(item: Item, text: str, judge: Judge) -> Marks:
    """The program between OpenCompass' marks, without quotes at its ends."""
    return _run(program_between(text) + "\n", item, judge, "between marks")


def mbpp_sdar(item: Item, text: str, judge: Judge) -> Marks:
    """The program between OpenCompass' marks, unchanged."""
    return _run(program_between(text, quotes=False) + "\n", item, judge, "between marks")


def mbpp_dinfer(item: Item, text: str, judge: Judge) -> Marks:
    """The program as dInfer finds it."""
    return _run(dinfer_program(text) + "\n", item, judge, "dinfer")


def mbpp(item: Item, text: str, judge: Judge) -> Marks:
    """The program as `code-v2` finds it, without the marks that MBPP's prompts ask for. Of no
    published protocol.
    """
    body = cut_at(text, ("[DONE]",)).replace("[BEGIN]", "")
    if not body.strip():
        return Marks(False, note="empty")
    called = [name for name in ENTRY.findall(item.meta["tests"]) if name not in WRAPPERS]
    program = extract(body, called[0] if called else None)
    return _run(program.source, item, judge, program.rule)


# mathematics


def _maths(right: bool, item: Item, text: str, judge: Judge) -> Marks:
    """A verdict with the one of `math-verify` beside it, if that is installed."""
    lenient = judge.same_mathematics(text, item.meta["reference"])
    return Marks(right, {} if lenient is None else {"math_verify": float(lenient)})


def maths_opencompass(item: Item, text: str, judge: Judge) -> Marks:
    """`math_postprocess_v2` and `MATHEvaluator` v2; `math_verify` beside it."""
    return _maths(same_answer(found_answer(text), item.meta["reference"]), item, text, judge)


def maths_verified(item: Item, text: str, judge: Judge) -> Marks:
    """`MATHVerifyEvaluator`; `boxed` beside it: the last box in the MATH dataset's normal form.

    Raises `InvalidRequest` if `math-verify` is not installed.
    """
    reference = item.meta["reference"]
    right = judge.require_same(text, reference, judge_boxed)
    return Marks(right, {"boxed": float(equivalent(boxed_answer(text), reference))})


def maths_d1(item: Item, text: str, judge: Judge) -> Marks:
    """`d1-v2` in the MATH dataset's normal form; `math_verify` beside it."""
    return _maths(equivalent(boxed_or_tagged(text), item.meta["reference"]), item, text, judge)


def maths_minerva_2(item: Item, text: str, judge: Judge) -> Marks:
    """`minerva_math` 2.0: the stated final answer, in Minerva's normal form, equals the reference
    by sympy; `math_verify` beside it.

    Raises `InvalidRequest` if `math-verify` is not installed.
    """
    said, reference = minerva_said(text), minerva_form(item.meta["reference"], "2.0")
    right = said is not None and judge.require_same(
        minerva_form(said, "2.0"), reference, same_by_sympy
    )
    return _minerva(said, right, judge.require_same(text, reference, judge_normal))


def maths_minerva_3(item: Item, text: str, judge: Judge) -> Marks:
    """`minerva_math` 3.1: the same in its normal form, and the same form is right without sympy.

    Raises `InvalidRequest` if `math-verify` is not installed.
    """
    said, reference = minerva_said(text), minerva_form(item.meta["reference"])
    form = "" if said is None else minerva_form(said)
    right = form != "" and (form == reference or judge.require_same(form, reference, same_by_sympy))
    return _minerva(said, right, judge.require_same(text, item.answer, judge_solution))


def _minerva(said: str | None, right: bool, verified: bool) -> Marks:
    note = "" if said is not None else "no final answer"
    return Marks(right, {"math_verify": float(verified)}, note)


def gsm8k_boxed(item: Item, text: str, judge: Judge) -> Marks:
    """`math_postprocess_v2` and `MATHEvaluator` v2."""
    return Marks(same_answer(found_answer(text), item.meta["reference"].replace(",", "")))


def gsm8k_opencompass(item: Item, text: str, judge: Judge) -> Marks:
    """The last number, as a number."""
    return Marks(same_integer(last_number(text), item.meta["reference"]))


def gsm8k_flexible(item: Item, text: str, judge: Judge) -> Marks:
    """The last number; `strict` counts numbers after `####` alone."""
    reference = item.meta["reference"]
    strict = same_number(strict_number(text), reference)
    return Marks(same_number(flexible_number(text), reference), {"strict": float(strict)})


def gsm8k_chain(item: Item, text: str, judge: Judge) -> Marks:
    """The last number; `strict` counts numbers in `The answer is N.` alone."""
    reference = item.meta["reference"]
    strict = same_number(said_number(text), reference)
    return Marks(same_number(flexible_number(text), reference), {"strict": float(strict)})


def gsm8k_dinfer(item: Item, text: str, judge: Judge) -> Marks:
    """The last number, noughts after a point left out; `strict` counts numbers after `####`."""
    reference = item.meta["reference"]
    strict = same_number(strict_number(text), reference, noughts=False)
    right = same_number(flexible_number(text), reference, noughts=False)
    return Marks(right, {"strict": float(strict)})


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
    *numbers, target = item.meta["input"].split(",")
    return Marks(chain_reaches(text, numbers, target))


def sudoku_d1(item: Item, text: str, judge: Judge) -> Marks:
    """Right is the whole puzzle; `cells` is the share of empty cells, which d1 reports."""
    puzzle, solution = item.meta["puzzle"], item.meta["solution"]
    grid = grid_of(text)
    right, empty = right_cells(grid, puzzle, solution)
    return Marks(is_solved(grid, puzzle, solution), {"cells": right / max(1, empty)})


def sudoku_grid(item: Item, text: str, judge: Judge) -> Marks:
    """Any grid of four lines that keeps the given cells and every rule, as Dream counts."""
    return Marks(is_valid(text, item.meta["puzzle"]))


GRADERS: Final[Mapping[str, Grade]] = MappingProxyType(
    {
        "humaneval-dream-v1": humaneval_dream,
        "humaneval-opencompass-v1": humaneval_opencompass,
        "humaneval-raw-v1": humaneval_raw,
        "mbpp-code-v2": mbpp,
        "mbpp-dinfer-v1": mbpp_dinfer,
        "mbpp-dream-v2": mbpp_dream,
        "mbpp-opencompass-v2": mbpp_opencompass,
        "mbpp-prefilled-v2": mbpp_prefilled,
        "mbpp-raw-v2": mbpp_raw,
        "mbpp-sdar-v1": mbpp_sdar,
        "maths-d1-v2": maths_d1,
        "maths-minerva2-v1": maths_minerva_2,
        "maths-minerva3-v1": maths_minerva_3,
        "maths-opencompass-v1": maths_opencompass,
        "maths-verified-v2": maths_verified,
        "gsm8k-boxed-v3": gsm8k_boxed,
        "gsm8k-opencompass-v1": gsm8k_opencompass,
        "gsm8k-flexible-v1": gsm8k_flexible,
        "gsm8k-chain-v1": gsm8k_chain,
        "gsm8k-d1-v1": gsm8k_d1,
        "gsm8k-dinfer-v1": gsm8k_dinfer,
        "countdown-d1-v2": countdown_d1,
        "countdown-chains-v2": countdown_chains,
        "sudoku-d1-v1": sudoku_d1,
        "sudoku-grid-v2": sudoku_grid,
    }
)
"""Rules with their versions, as run headers name them."""
