"""Checks of what is given under the argument names of the reference codes.

They become spec strings of parts, so that a value must be right before it is written into one.
"""

from __future__ import annotations

from typing import Any, Final

from dlm.config.argument_types import MOST
from dlm.config.checks import is_finite, is_integer
from dlm.errors import InvalidRequest, shown

FLAGS: Final = frozenset({"use_cache", "dual_cache", "logits_eos_inf", "confidence_eos_eot_inf"})
"""Names whose value is True or False."""
INTEGERS: Final = frozenset({"gen_length", "block_length", "denoising_steps", "max_post_steps"})
"""Names whose value counts something."""
NUMBERS: Final = frozenset(
    {"factor", "threshold", "alg_temp", "eps", "cfg_scale"}
    | {"confidence_threshold", "editing_threshold", "eb_threshold"}
)
"""Names whose value is any finite number."""
NAMES: Final = frozenset({"remasking", "alg", "remasking_strategy"})
"""Names whose value is a name."""


def check_alias(name: str, value: Any) -> None:
    """Raise `InvalidRequest` for a value that the reference codes would not take either; None is
    the same as nothing.
    """
    if value is None:
        return
    if name in FLAGS and not isinstance(value, bool):
        raise InvalidRequest(name, f"must be True or False, got {shown(value)}")
    if name in INTEGERS and (not is_integer(value) or abs(value) >= MOST):
        below = " below 2**31" if is_integer(value) else ""
        raise InvalidRequest(name, f"must be an integer{below}, got {shown(value)}")
    if name in NUMBERS and not is_finite(value):
        raise InvalidRequest(name, f"must be a finite number, got {shown(value)}")
    if name in NAMES and not isinstance(value, str):
        raise InvalidRequest(name, f"must be a name, got {shown(value)}")
