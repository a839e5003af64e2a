"""`math-verify` (Apache-2.0) as a lenient grader: mathematical equality of whatever a text says.

It stops parsing by a signal, which works in the main thread of a process alone, so `judge` belongs
in a process of its own.
"""

from __future__ import annotations

import logging
from typing import Final

SECONDS: Final = 20.0
"""How long an answer may take; math-verify itself gives up after five for each of its steps."""


def judge(text: str, reference: str) -> bool:
    """Whether a text says what the reference does, given in LaTeX. Needs `math-verify`."""
    from math_verify import parse, verify

    logging.disable(logging.ERROR)
    try:
        return bool(verify(parse(f"\\boxed{{{reference}}}"), parse(text)))
    except Exception:  # of the parser, whatever the text holds
        return False
