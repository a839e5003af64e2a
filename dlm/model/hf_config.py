"""Reading a `config.json` field by field, with errors that name the real field and its value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeGuard

from dlm.errors import InvalidRequest

MOST: Final = 2**31
"""No size of a model reaches this."""


class Fields:
    """The fields of one `config.json`, asked for under the names that `transformers` uses.

    `names` renames them for families with other names; a field that is null counts as absent.
    `path` is that of the file. Every method raises `InvalidRequest("model", ...)`.
    """

    def __init__(
        self, config: Mapping[str, Any], family: str, names: Mapping[str, str], path: str
    ) -> None:
        self.config, self.family, self.names, self.path = config, family, names, path

    def get(self, name: str, default: Any = None) -> Any:
        """The field's value, `default` when it is absent or null."""
        value = self.config.get(self.real(name))
        return default if value is None else value

    def real(self, name: str) -> str:
        """The name under which this family's files hold the field."""
        return self.names.get(name, name)

    def size(self, name: str, default: int | None = None) -> int:
        """A positive whole number; 0 means the default, as in some published files."""
        value = self.get(name) or default
        if not value:
            raise self.missing(name)
        if not is_whole(value) or not 0 < value < MOST:
            raise self.wrong(name, "a positive integer", value)
        return value

    def count(self, name: str) -> int:
        """A whole number of things that may be none; absent is none."""
        return self.size(name) if self.get(name) else 0

    def numbers(self, name: str, default: list[int]) -> list[int]:
        """A list of whole numbers."""
        value = self.get(name, default)
        if not isinstance(value, list | tuple) or not all(map(is_whole, value)):
            raise self.wrong(name, "a list of whole numbers", value)
        return list(value)

    def token(self, name: str, default: int | None = None) -> int | None:
        """A token id; None where there is none."""
        value = self.get(name, default)
        if value is None or is_whole(value):
            return value
        raise self.wrong(name, "null or a token id", value)

    def number(self, name: str, default: float | None = None) -> float:
        """A positive number."""
        value = self.get(name, default)
        if value is None:
            raise self.missing(name)
        if not is_positive(value):
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
                f"{self.path}: sliding-window attention is not supported, got "
                f"`use_sliding_window` {self.get('use_sliding_window')!r}, `sliding_window` "
                f"{self.get('sliding_window')!r}; `use_sliding_window` must be false",
            )
        kinds = self.get("layer_types", [])
        if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
            raise self.wrong("layer_types", "'full_attention' for each layer", kinds)

    def no_nesting(self) -> None:
        """Refuse a language model's config inside that of another."""
        inner = [name for name in ("text_config", "llm_config") if self.get(name) is not None]
        if inner:
            raise self.wrong(inner[0], "absent (a model of texts alone is supported)", "a table")

    def missing(self, name: str) -> InvalidRequest:
        """The error for a field that the family needs."""
        return InvalidRequest(
            "model", f"{self.path} of family {self.family!r} lacks the field `{self.real(name)}`"
        )

    def wrong(self, name: str, rule: str, value: Any) -> InvalidRequest:
        """The error for a value that breaks `rule`."""
        return InvalidRequest(
            "model",
            f"{self.path} of family {self.family!r}: `{self.real(name)}` must be {rule}, "
            f"got {value!r}",
        )


def is_whole(value: Any) -> TypeGuard[int]:
    """True for a whole number; a bool is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_positive(value: Any) -> bool:
    """True for a finite number above 0; a bool is none."""
    return (is_whole(value) or isinstance(value, float)) and 0 < value < 1e300


def token_ids(where: str, value: Any) -> list[int]:
    """A field of token ids: null, one id, or a list of them. Raises `InvalidRequest`.

    `where` names the field in messages.
    """
    ids = [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
    if not all(map(is_whole, ids)):
        raise InvalidRequest(
            "model", f"{where} must be null, a token id or a list of them, got {value!r}"
        )
    return ids
