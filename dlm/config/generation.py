"""`GenerationConfig`: everything a user may ask of a generation, as one frozen table."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeGuard

from dlm.config.aliases import resolve_aliases
from dlm.config.fields import FIELDS
from dlm.config.infill import checked_infill
from dlm.config.spec import registry_of
from dlm.errors import InvalidRequest, unknown_name

DEFAULT_LENGTH: Final = 128
"""`max_new_tokens` where nothing else sets it."""
MOST_BIAS: Final = 1e4
"""Bound of `logit_bias`: far beyond any logit, and far from overflow."""


class StopString(str):
    """A string that ends the text, also where it spells the name of a stop rule."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """One request's settings; the table in `dlm.config.FIELDS` says what each means.

    Parts (`blocks`, `unmask`, `edit`, `guide`, `stop`, `cache`) are objects, names or spec strings
    such as `"adaptive(threshold=0.3)"`; `edit`, `guide` and `stop` may be several in a list. None:
    what suits the model; `max_new_tokens` stays None where a template in `infill` sets it.
    """

    max_new_tokens: int | None = None
    infill: str | Sequence[int | None] | Mapping[int, Any] | None = None
    steps: int | None = None
    blocks: Any = None
    unmask: Any = None
    edit: Any = None
    guide: Any = None
    stop: Any = None
    cache: Any = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    n: int = 1
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    preset: str | None = None
    trace: bool = False

    def __post_init__(self) -> None:
        if self.infill is not None:
            object.__setattr__(self, "infill", checked_infill(self.infill))
        if self.max_new_tokens is None and not isinstance(self.infill, str | tuple):
            object.__setattr__(self, "max_new_tokens", DEFAULT_LENGTH)
        if self.max_new_tokens is not None:
            _at_least("max_new_tokens", self.max_new_tokens, 1)
        if self.steps is not None:
            _at_least("steps", self.steps, 1, most=2**31 - 1)
        _at_least("n", self.n, 1, most=1024)
        _at_least("top_k", self.top_k, 0, most=2**31 - 1)
        _number("temperature", self.temperature, low=0.0)
        _number("top_p", self.top_p, low=0.0, high=1.0)
        if self.top_p == 0:
            raise InvalidRequest("top_p", "must be greater than 0 and at most 1, got 0")
        if not isinstance(self.seed, int) or not -(2**63) <= self.seed < 2**63:
            raise InvalidRequest("seed", f"must be a 64-bit integer, got {self.seed!r}")
        _bias(self.logit_bias)
        if self.preset is not None and not isinstance(self.preset, str):
            raise InvalidRequest("preset", f"must be a name, got {self.preset!r}")
        if not isinstance(self.trace, bool):
            raise InvalidRequest("trace", f"must be True or False, got {self.trace!r}")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """A config from keyword options; the reference codes' names are understood.

        Raises `InvalidRequest` for an unknown option, listing the known ones.
        """
        return cls(**cls.named(options))

    @staticmethod
    def named(options: Mapping[str, Any]) -> dict[str, Any]:
        """The same options by the names of the fields. Raises as `from_options` does."""
        resolved = resolve_aliases(options)
        for name in resolved:
            if name not in FIELDS:
                raise unknown_name("option", name, FIELDS)
        return resolved

    def stop_strings(self) -> tuple[str, ...]:
        """What of `stop` is text: strings that name no rule, and every `StopString`."""
        return tuple(i for i in self.several("stop") if isinstance(i, str) and not _is_rule(i))

    def several(self, name: str) -> tuple[Any, ...]:
        """The parts of `edit`, `guide` or `stop` as a tuple.

        None is an empty tuple; a value that is no list becomes a tuple of one.
        """
        value = getattr(self, name)
        if value is None:
            return ()
        return (
            tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
        )


def _is_rule(item: str) -> bool:
    """Whether a `stop` string is a rule: a known name, `name(...)`, or `pkg.mod:Class`."""
    if isinstance(item, StopString):
        return False
    spec = re.fullmatch(r"(\w+)\(.*\)|[\w.]+:[A-Za-z_]\w*(\(.*\))?", item.strip(), re.DOTALL)
    return spec is not None or item == "none" or item.strip() in registry_of("stop")


def _at_least(name: str, value: object, low: int, most: int | None = None) -> None:
    allowed = f"of at least {low}" if most is None else f"between {low} and {most}"
    top = math.inf if most is None else most
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= top:
        raise InvalidRequest(name, f"must be an integer {allowed}, got {value!r}")


def _number(name: str, value: object, *, low: float, high: float = math.inf) -> None:
    allowed = f"of at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
    if not is_finite(value) or not low <= value <= high:
        raise InvalidRequest(name, f"must be a finite number {allowed}, got {value!r}")


def is_finite(value: object) -> TypeGuard[float]:
    """Whether `value` is a plain, finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _bias(value: object) -> None:
    """Token ids to finite numbers."""
    rule = f"must map token ids to numbers between -{MOST_BIAS:g} and {MOST_BIAS:g}"
    if not isinstance(value, Mapping):
        raise InvalidRequest("logit_bias", f"{rule}, got {value!r}")
    for token, number in value.items():
        if not isinstance(token, int) or isinstance(token, bool) or token < 0:
            raise InvalidRequest("logit_bias", f"{rule}, got the id {token!r}")
        if not is_finite(number) or abs(number) > MOST_BIAS:
            raise InvalidRequest("logit_bias", f"{rule}, got {number!r} for id {token}")
