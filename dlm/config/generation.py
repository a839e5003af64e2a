"""`GenerationConfig`: everything a user may ask of a generation, as one frozen table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Self

from dlm.config.aliases import ALIASES, check_alias, resolve_aliases
from dlm.config.checks import is_finite, is_integer, require_integer, require_number
from dlm.config.infill import checked_infill
from dlm.config.options import FIELDS
from dlm.config.spec_strings import KINDS, parse_part
from dlm.config.stopping import NONE, is_rule
from dlm.errors import InvalidRequest, require_text, shown, unknown_name

DEFAULT_LENGTH: Final = 128
"""`max_new_tokens` where nothing else sets it."""
MOST: Final = 2**31 - 1
"""Bound of counts: far beyond any model, and two of them can be multiplied."""
MOST_BIAS: Final = 1e4
"""Bound of `logit_bias`: far beyond any logit, and far from overflow."""

MOST_LIKELY: Final = 20
"""Bound of `top_logprobs`, that of OpenAI's API."""

_BESIDE: Final = "is an option of searches: give `search`, too"
OF_SEARCHES: Final = MappingProxyType(
    {
        "search": "is an option of `generate`; `AsyncEngine.start_search` gives the events of one",
        **dict.fromkeys(("verifier", "budget", "target", "allow_oracle", "on_improve"), _BESIDE),
    }
)
"""Options that are none of a decoding, and what to do about them."""


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """One request's settings; the table `dlm.config.FIELDS` explains each.

    Parts (`blocks`, `unmask`, `edit`, `guide`, `stop`, `cache`) are objects, names or spec strings
    such as `"adaptive(threshold=0.3)"`; `edit`, `guide` and `stop` may be several in a list. None:
    what suits the model; `max_new_tokens` stays None if a template in `infill` sets it.
    """

    max_new_tokens: int | None = None
    infill: str | Sequence[int | None] | Mapping[int, Any] | None = None
    start: str | Sequence[int | None] | None = None
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
    top_logprobs: int = 0
    preset: str | None = None
    trace: bool = False

    def __post_init__(self) -> None:
        if self.infill is not None:
            object.__setattr__(self, "infill", checked_infill(self.infill))
        if self.start is not None:
            object.__setattr__(self, "start", self._checked_start())
        if self.max_new_tokens is None and not isinstance(self.infill, str | tuple):
            object.__setattr__(self, "max_new_tokens", DEFAULT_LENGTH)
        if self.max_new_tokens is not None:
            require_integer("max_new_tokens", self.max_new_tokens, 1)
            if self.max_new_tokens > MOST:
                given = shown(self.max_new_tokens)
                raise InvalidRequest("max_new_tokens", f"must be at most {MOST}, got {given}")
        if self.steps is not None:
            require_integer("steps", self.steps, 1, most=MOST)
        require_integer("n", self.n, 1, most=1024)
        require_integer("top_k", self.top_k, 0, most=MOST)
        require_integer("top_logprobs", self.top_logprobs, 0, most=MOST_LIKELY)
        require_number("temperature", self.temperature, low=0.0)
        require_number("top_p", self.top_p, low=0.0, high=1.0)
        if self.top_p == 0:
            raise InvalidRequest("top_p", "must be greater than 0 and at most 1, got 0")
        if not is_integer(self.seed) or not -(2**63) <= self.seed < 2**63:
            raise InvalidRequest("seed", f"must be a 64-bit integer, got {shown(self.seed)}")
        _bias(self.logit_bias)
        for string in self.stop_strings():
            require_text("stop", string)
        if self.preset is not None and not isinstance(self.preset, str):
            raise InvalidRequest("preset", f"must be a name, got {shown(self.preset)}")
        if not isinstance(self.trace, bool):
            raise InvalidRequest("trace", f"must be True or False, got {shown(self.trace)}")

    def _checked_start(self) -> str | Sequence[int | None]:
        """A text, or ids as a tuple. Raises `InvalidRequest` for anything else, and `infill`."""
        found = checked_infill(self.start, "start")
        if isinstance(found, Mapping):
            rule = "must be a text or a list of ids with None where it is open"
            raise InvalidRequest("start", f"{rule}, got {shown(self.start)}")
        if self.infill is not None:
            raise InvalidRequest("start", "gives the whole answer: leave `infill` out")
        return found

    @classmethod
    def from_options(cls, options: Mapping[str, Any], *, trusted: bool = True) -> Self:
        """A config from keyword options; the reference codes' names are understood.

        `trusted=False` is for options of strangers: parts by registered names alone (see
        `parse_part`). Raises `InvalidRequest` for an unknown option, listing the known ones.
        """
        config = cls(**cls.named(options))
        if trusted:
            return config
        for kind in KINDS:
            for spec in config.several(kind):
                if not (kind == "stop" and _is_text(spec)) and spec != NONE:
                    parse_part(kind, spec, trusted=False)
        return config

    @classmethod
    def check_untrusted(cls, options: Mapping[str, Any]) -> None:
        """Check what the `dlm` object of a request over HTTP sets.

        Raises `InvalidRequest` for an option that the table keeps from it, by whichever name, and
        as `from_options` does for options of strangers.
        """
        for name in options:
            field = FIELDS.get(ALIASES.get(name, name))
            if field is not None and not field.http:
                allowed = ", ".join(known for known, field in FIELDS.items() if field.http)
                rule = "has a field of its own in a request over HTTP; options of `dlm` are"
                raise InvalidRequest(name, f"{rule} {allowed}")
        cls.from_options(options, trusted=False)

    @staticmethod
    def named(options: Mapping[str, Any]) -> dict[str, Any]:
        """The same options by the names of the fields. Raises as `from_options` does."""
        for name, value in options.items():
            check_alias(name, value)
        resolved = resolve_aliases(options)
        for name in resolved:
            if name in OF_SEARCHES:
                raise InvalidRequest(name, OF_SEARCHES[name])
            if name not in FIELDS:
                raise unknown_name("option", name, FIELDS)
        return resolved

    def stop_strings(self) -> tuple[str, ...]:
        """The texts in `stop`: strings that name no rule, and every `StopString`.

        Raises `InvalidRequest` for a string that looks like a rule and is none.
        """
        return tuple(filter(_is_text, self.several("stop")))

    def several(self, name: str) -> tuple[Any, ...]:
        """The parts of `edit`, `guide` or `stop` as a tuple.

        None is an empty tuple; a value that is no list
        becomes a tuple of one.
        """
        value = getattr(self, name)
        if value is None:
            return ()
        return (
            tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
        )


def _is_text(item: Any) -> bool:
    """True if an item of `stop` is text. Raises `InvalidRequest` for a misspelled rule."""
    return isinstance(item, str) and not is_rule(item)


def _bias(value: object) -> None:
    """Token ids to finite numbers."""
    rule = f"must map token ids to numbers between -{MOST_BIAS:g} and {MOST_BIAS:g}"
    if not isinstance(value, Mapping):
        raise InvalidRequest("logit_bias", f"{rule}, got {shown(value)}")
    for token, number in value.items():
        if not is_integer(token) or token < 0:
            raise InvalidRequest("logit_bias", f"{rule}, got the id {shown(token)}")
        if not is_finite(number) or abs(number) > MOST_BIAS:
            given = f"{shown(number)} for id {shown(token)}"
            raise InvalidRequest("logit_bias", f"{rule}, got {given}")
