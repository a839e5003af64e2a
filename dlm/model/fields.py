"""Reading a `config.json` field by field, with errors that name the real field and its value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlm.errors import InvalidRequest


class Fields:
    """The fields of one `config.json`, asked for under the names that `transformers` uses.

    `names` renames them for families with other names; a field that is null counts as absent.
    Every method raises `InvalidRequest("model", ...)`.
    """

    def __init__(self, config: Mapping[str, Any], family: str, names: Mapping[str, str]) -> None:
        self.config, self.family, self.names = config, family, names

    def get(self, name: str, default: Any = None) -> Any:
        """The field's value, `default` when it is absent or null."""
        value = self.config.get(self.real(name))
        return default if value is None else value

    def real(self, name: str) -> str:
        """The name under which this family's files hold the field."""
        return self.names.get(name, name)

    def size(self, name: str, default: int | None = None) -> int:
        """A positive whole number; 0 stands for the default, as in some published files."""
        value = self.get(name) or default
        if value is None:
            raise self.missing(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.wrong(name, "a positive integer", value)
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A positive number."""
        value = self.get(name, default)
        if value is None:
            raise self.missing(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise self.wrong(name, "a positive number", value)
        return float(value)

    def flag(self, name: str, default: bool | None = None) -> bool:
        """True or false."""
        value = self.get(name, default)
        if value is None:
            raise self.missing(name)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false", value)
        return value

    def fixed(self, name: str, *allowed: Any) -> None:
        """Refuse every value but the `allowed` ones; absent is fine."""
        value = self.config.get(self.real(name), allowed[0])
        if not any(
            value == choice and isinstance(value, bool) == isinstance(choice, bool)
            for choice in allowed
        ):
            choices = " or ".join(repr(choice) for choice in allowed)
            raise self.wrong(name, f"{choices} (nothing else is supported)", value)

    def no_windows(self) -> None:
        """Refuse sliding-window attention in use; a window that is switched off may stay."""
        if self.get("use_sliding_window", self.get("sliding_window") is not None):
            raise InvalidRequest(
                "model",
                "config.json: sliding-window attention is not supported, got "
                f"`use_sliding_window` {self.get('use_sliding_window')!r}, `sliding_window` "
                f"{self.get('sliding_window')!r}; `use_sliding_window` must be false",
            )
        kinds = set(self.get("layer_types", ())) - {"full_attention"}
        if kinds:
            raise self.wrong("layer_types", "'full_attention' for each layer", sorted(kinds))

    def missing(self, name: str) -> InvalidRequest:
        """The error for a field that the family needs."""
        return InvalidRequest(
            "model", f"config.json of family {self.family!r} lacks the field `{self.real(name)}`"
        )

    def wrong(self, name: str, rule: str, value: Any) -> InvalidRequest:
        """The error for a value that breaks `rule`."""
        return InvalidRequest(
            "model",
            f"config.json of family {self.family!r}: `{self.real(name)}` must be {rule}, "
            f"got {value!r}",
        )
