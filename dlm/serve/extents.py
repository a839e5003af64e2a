"""The extent that a value in the `dlm` object may have."""

from __future__ import annotations

from typing import Any, Final

from dlm.serve.errors import refused
from dlm.serve.schemas import MOST_IDS

MOST_ITEMS: Final = 64
"""Items of an option in the `dlm` object."""
LONGEST_SPEC: Final = 8192
"""Characters of a part's spec string."""


def check_extent(param: str, value: Any, *, template: bool = False) -> None:
    """Raise `ApiError` 400 for a value longer than any option needs."""
    if isinstance(value, list | dict) and len(value) > (MOST_IDS if template else MOST_ITEMS):
        raise refused(param, f"`{param}` has {len(value)} items: that is too many")
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str) and not template and len(text) > LONGEST_SPEC:
            told = f"must have at most {LONGEST_SPEC} characters, got {len(text)}"
            raise refused(param, f"`{param}` {told}")
