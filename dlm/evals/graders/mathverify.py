"""Mathematical equality of answers, by `math-verify` (Apache-2.0) and by sympy.

Each rule takes an answer and a reference. All stop what takes too long by a signal, which works in
the main thread of a process alone, so they belong in processes of their own.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from types import FrameType
from typing import Final

Rule = Callable[[str, str], bool]
"""From an answer and a reference to whether they are the same."""
SECONDS: Final = 20.0
"""How long an answer may take; the rules themselves give up after five for each of their steps."""
SYMPY_SECONDS: Final = 5.0


def judge(text: str, reference: str) -> bool:
    """True if a text gives the value of the reference (LaTeX), in whatever notation."""
    return _same(f"\\boxed{{{reference}}}", text)


def judge_normal(text: str, reference: str) -> bool:
    """`math_verify` of lm-evaluation-harness' `minerva_math` 2.0, whose reference is an answer in
    Minerva's normal form, without marks of a formula.
    """
    return _same(reference, text)


def judge_solution(text: str, solution: str) -> bool:
    """`math_verify` of `minerva_math` 3.1, whose reference is a whole solution."""
    return _same(solution, text)


def _same(reference: str, text: str) -> bool:
    from math_verify import parse, verify

    logging.disable(logging.ERROR)
    try:
        return bool(verify(parse(reference), parse(text)))
    except Exception:  # of the parser, whatever the text holds
        return False


def judge_boxed(text: str, reference: str) -> bool:
    """`MATHVerifyEvaluator` of OpenCompass: the first formula, boxes before others, and never a
    number outside formulas. The two change their places in the comparison there.
    """
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    logging.disable(logging.ERROR)
    strict = NormalizationConfig(
        nits=False, malformed_operators=False, basic_latex=True, boxed="all", units=True
    )
    reading = LatexExtractionConfig(
        normalization_config=strict, boxed_match_priority=0, try_extract_without_anchor=False
    )
    both = (LatexExtractionConfig(), ExprExtractionConfig())
    try:
        known = parse(f"${reference}$", both, extraction_mode="first_match")
        if not known:
            return False
        return bool(verify(parse(text, (reading,), extraction_mode="first_match"), known))
    except Exception:  # of the parser, whatever the text holds
        return False


def same_by_sympy(answer: str, reference: str) -> bool:
    """True if sympy reads two normal forms and simplifies their difference to zero, as
    lm-evaluation-harness' `minerva_math` compares them.

    Raises `ImportError` if sympy or its reader of LaTeX is missing.
    """
    import sympy
    from sympy.parsing.latex import _parse_latex_antlr as reader

    # It asks for the runtime 4.11 by name, and its parser prints that another one runs. Later ones
    # read the same tables, and are what math-verify brings along.
    reader.version = lambda package: "4.11"
    before = signal.signal(signal.SIGALRM, _too_late)
    signal.setitimer(signal.ITIMER_REAL, SYMPY_SECONDS)
    try:
        with redirect_stdout(StringIO()):
            difference = reader.parse_latex(answer) - reader.parse_latex(reference)
        return bool(sympy.simplify(difference) == 0)
    except ImportError:
        raise
    except Exception:  # of the reader and of arithmetic, whatever the text holds
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _too_late(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("sympy takes too long")
