"""`CausalConfig`: the options that a causal model takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from dlm.config.checks import require_integer
from dlm.config.generation import GenerationConfig
from dlm.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class CausalConfig:
    """The options of a causal model: the fields of `GenerationConfig` that apply to one.

    `stop` takes texts alone. Raises `InvalidRequest`.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop: Any = None

    def __post_init__(self) -> None:
        require_integer("max_new_tokens", self.max_new_tokens, 1)
        checked = GenerationConfig(**{f.name: getattr(self, f.name) for f in fields(self)})
        texts, asked = checked.stop_strings(), checked.several("stop")
        if len(texts) < len(asked):
            rule = next(item for item in asked if not any(item is text for text in texts))
            raise InvalidRequest(
                "stop", f"takes texts alone for a causal model, got the rule {rule!r}"
            )
        if not all(texts):
            raise InvalidRequest("stop", "a stop string must not be empty")
        object.__setattr__(self, "stop", tuple(map(str, texts)))

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> CausalConfig:
        """A config from keyword options. Raises `InvalidRequest` for one that applies to diffusion
        models alone, or to none.
        """
        named = GenerationConfig.named(options)
        known = {f.name for f in fields(cls)}
        for name in named:
            if name not in known:
                raise InvalidRequest(
                    name, f"is no option of a causal model, which takes {', '.join(sorted(known))}"
                )
        return cls(**named)
