"""Holes: `[[mask:24]]` in a text stands for 24 open positions."""

from __future__ import annotations

import re
from typing import Final

from dlm.errors import InvalidRequest

HOLE: Final = re.compile(r"\[\[mask:([0-9]{1,6})\]\]")
LIKE_A_HOLE: Final = re.compile(
    r"(?:\[\[\s*masks?(?:(?![a-z_])|_?[0-9])|(?<![\w)\]\[])\[masks?\s*:\s*[0-9]).{0,12}",
    re.IGNORECASE,
)
"""What is meant as a hole: other brackets, spaces, signs or letters than a hole has; an index
such as `x[mask:3]` is none.
"""


def parse_holes(param: str, text: str) -> list[str | int]:
    """The texts of a template and the lengths of its holes, in order; empty texts are left out.

    Raises `InvalidRequest` for `param` if something begins like a hole and is none.
    """
    pieces = HOLE.split(text)  # texts at the even places, lengths at the odd ones
    parts: list[str | int] = []
    for index, piece in enumerate(pieces):
        if index % 2:
            if int(piece) == 0:
                raise InvalidRequest(param, "a hole must have at least 1 position, got [[mask:0]]")
            parts.append(int(piece))
        elif found := LIKE_A_HOLE.search(piece):
            raise InvalidRequest(
                param, f"a hole is written [[mask:N]], N open positions, got {found[0]!r}"
            )
        elif piece:
            parts.append(piece)
    return parts
