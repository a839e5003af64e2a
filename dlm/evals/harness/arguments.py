"""Parse the harness' flat lists: `--model_args`, and a task's `generation_kwargs`."""

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
OTHERS: Final[Sequence[str]] = ("pretrained", "batch_size", "escape_until")
IGNORED: Final[Sequence[str]] = ("max_batch_size", "trust_remote_code")
"""Of the command, without a meaning here: batches grow by themselves, no code is loaded."""
MOST_ROWS: Final = 32
LENGTHS: Final[Sequence[str]] = (
    *("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"),
)
"""What tasks call the length of an answer; the first that is there counts."""
LENGTH: Final = 256
"""The harness' own length where a task names none."""
NUMBERS: Final[Mapping[str, type]] = MappingProxyType(
    {"temperature": float, "top_p": float, "top_k": int, "seed": int}
)


class Arguments(NamedTuple):
    """The arguments of a harness run, sorted by their reader.

    source, loading: for `dlm.load`
    rows: requests in flight
    likelihood: the scoring of continuations
    options: for `engine.generate`
    escape_until: True to ignore a task's stop strings
    """

    source: str
    loading: dict[str, Any]
    rows: int
    likelihood: Likelihood
    options: dict[str, Any]
    escape_until: bool


def read_arguments(given: Mapping[str, Any]) -> Arguments:
    """Sort the arguments of the command line. Raises `InvalidRequest` for unknown ones."""
    left = {k: v for k, v in given.items() if v is not None and k not in IGNORED}
    source = str(left.pop("pretrained", "tiny"))
    loading = {name: left.pop(name) for name in LOADING if name in left}
    drawn = {name: left.pop(name) for name in DRAWS if name in left}
    rows = _rows(left.pop("batch_size", MOST_ROWS))
    memory = loading.get("kv_bytes", 1)
    if not isinstance(memory, int) or isinstance(memory, bool) or memory < 1:
        raise InvalidRequest("kv_bytes", f"must be a number of bytes, got {memory!r}")
    escape = _flag("escape_until", left.pop("escape_until", False))
    try:
        dlm.GenerationConfig.from_options(left)
    except InvalidRequest as error:
        if error.param != "option":
            raise
        known = ", ".join((*OTHERS, *LOADING, *DRAWS))
        raise InvalidRequest("model_args", f"{error.message}; besides these: {known}") from error
    return Arguments(source, loading, rows, _likelihood(drawn), left, escape)


def read_task(task: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A task's `generation_kwargs` as options of `engine.generate`, and its stop strings.

    Without `do_sample` a temperature counts, with False it does not, as in the harness. Raises
    `InvalidRequest` for options that the engine does not know.
    """
    left = {name: value for name, value in task.items() if value is not None}
    until = left.pop("until", [])
    lengths = [left.pop(name) for name in LENGTHS if name in left]
    sampled = _flag("do_sample", left.pop("do_sample", True))
    beams = left.pop("num_beams", 1)
    try:
        if int(beams) != 1:
            raise InvalidRequest("num_beams", f"must be 1: there is no beam search, got {beams!r}")
        options = dlm.GenerationConfig.named(left)
        options.setdefault("max_new_tokens", int(lengths[0]) if lengths else LENGTH)
        options |= {name: kind(options[name]) for name, kind in NUMBERS.items() if name in options}
        if not sampled:
            options["temperature"] = 0.0
        dlm.GenerationConfig(**options)
    except (InvalidRequest, TypeError, ValueError) as error:
        raise InvalidRequest("generation_kwargs", f"of the task: {error}") from error
    texts = [until] if isinstance(until, str) else list(until)
    return options, [text for text in texts if text]


def _likelihood(drawn: Mapping[str, Any]) -> Likelihood:
    """Raises `InvalidRequest` with the name that was given."""
    try:
        return Likelihood(**{DRAWS[name]: value for name, value in drawn.items()})
    except InvalidRequest as error:
        names = {ours: theirs for theirs, ours in DRAWS.items()}
        raise InvalidRequest(names[error.param], error.message) from error


def _rows(value: Any) -> int:
    """`--batch_size`; `auto` leaves it to the engine."""
    if str(value).startswith("auto"):
        return MOST_ROWS
    if not str(value).isdecimal() or int(value) < 1:
        raise InvalidRequest("batch_size", f"must be at least 1 or 'auto', got {value!r}")
    return int(value)


def _flag(name: str, value: Any) -> bool:
    """A flag, which may arrive as text."""
    known = {"true": True, "false": False}
    found = known.get(str(value).lower())
    if found is None:
        raise InvalidRequest(name, f"must be true or false, got {value!r}")
    return found
