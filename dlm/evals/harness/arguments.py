"""`--model_args`: one flat list of what is loaded, how likelihoods are drawn, how it decodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import dlm
from dlm.errors import InvalidRequest
from dlm.evals.harness.likelihood import Likelihood

DRAWS: Final[Mapping[str, str]] = MappingProxyType(
    {"mc_num": "draws", "mc_batch": "batch", "mc_seed": "seed", "mc_cfg_scale": "cfg_scale"}
)
"""Arguments of likelihoods, the first two as LLaDA's own harness model calls them."""
LOADING: Final[Sequence[str]] = ("device", "dtype", "revision", "kv_bytes")


class Arguments(NamedTuple):
    """`source`, `loading`: what `dlm.load` gets · `rows`: requests in flight · `options` of
    `engine.generate`.
    """

    source: str
    loading: dict[str, Any]
    rows: int
    likelihood: Likelihood
    options: dict[str, Any]
    escape_until: bool


def read_arguments(given: Mapping[str, Any]) -> Arguments:
    """Sort the arguments of the command line. Raises `InvalidRequest` for unknown ones."""
    left = {name: value for name, value in given.items() if value is not None}
    left.pop("max_batch_size", None)
    source = str(left.pop("pretrained", "tiny"))
    loading = {name: left.pop(name) for name in LOADING if name in left}
    drawn = {ours: left.pop(name) for name, ours in DRAWS.items() if name in left}
    rows = _rows(left.pop("batch_size", 16))
    escape = bool(left.pop("escape_until", False))
    try:
        dlm.GenerationConfig.from_options(left)
    except InvalidRequest as error:
        if error.param != "option":
            raise
        known = ", ".join(("pretrained", *LOADING, *DRAWS, "batch_size", "escape_until"))
        raise InvalidRequest("model_args", f"{error.message}; besides these: {known}") from error
    return Arguments(source, loading, rows, Likelihood(**drawn), left, escape)


def _rows(value: Any) -> int:
    """`--batch_size`; `auto` is what the engine does anyway."""
    if str(value).startswith("auto"):
        return 32
    try:
        rows = int(value)
    except ValueError:
        rows = 0
    if rows < 1:
        raise InvalidRequest("batch_size", f"must be at least 1 or 'auto', got {value!r}")
    return rows
