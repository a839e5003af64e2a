"""The forms of a prompt: a text, token ids, messages, or a list of these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from dlm.errors import InvalidRequest, require_text, shown

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]
"""A text (one user turn), token ids as they are, or chat messages.

All of them are pinned, the mask's own id among token ids too: `infill` is what opens positions.
"""


def is_ids(prompt: Any) -> TypeGuard[Sequence[int]]:
    """True if a prompt is token ids; an empty list is."""
    return not isinstance(prompt, str) and all(isinstance(i, int) for i in prompt)


def plain(prompt: Any, name: str = "prompt") -> Any:
    """A text as it is; arrays of ids and any other iterable as a list, its texts checked.

    Raises `InvalidRequest` naming `prompt`, or for a text that no encoding has `name` or the field
    of the message.
    """
    if isinstance(prompt, str):
        return require_text(name, prompt)
    if isinstance(prompt, Mapping | bytes | bytearray) or not isinstance(prompt, Iterable):
        raise InvalidRequest(
            "prompt",
            f"must be a text, token ids, messages, or a list of these, got {shown(prompt)}",
        )
    try:
        items = prompt.tolist() if hasattr(prompt, "tolist") else list(prompt)
    except TypeError:  # a tensor without a dimension
        items = None
    if not isinstance(items, list):
        raise InvalidRequest("prompt", f"must have at least one dimension, got {shown(prompt)}")
    for index, message in enumerate(items):
        if isinstance(message, Mapping):
            _check_message(f"messages[{index}]", message)
    return items


def one_prompt(prompt: Any) -> Any:
    """The same for one prompt alone: a list holds nothing but ids, or nothing but messages."""
    items = plain(prompt)
    if isinstance(items, str):
        return items
    kinds = {Mapping if isinstance(item, Mapping) else type(item) for item in items}
    if kinds <= {int} or kinds == {Mapping}:
        return items
    wrong = next(item for item in items if type(item) is not int)
    raise InvalidRequest(
        "prompt", f"must be a text, or a list of token ids or of messages, got {shown(wrong)} in it"
    )


def _check_message(name: str, message: Mapping[Any, Any]) -> None:
    """Raise `InvalidRequest` for keys that are no names, and for a text that no encoding has."""
    for key, value in message.items():
        if not isinstance(key, str):
            rule = "must have the keys 'role' and 'content'"
            raise InvalidRequest(name, f"{rule}, got {shown(key)}")
        require_text(name, key)
        if isinstance(value, str):
            require_text(f"{name}.{key}", value)
        elif key == "role":
            raise InvalidRequest(f"{name}.role", f"must be a string, got {shown(value)}")


def is_batch(prompt: str | list[Any]) -> bool:
    """A list of prompts, as against one text, one list of ids, or one list of messages."""
    return not (
        isinstance(prompt, str)
        or (prompt and all(isinstance(i, int) for i in prompt))
        or (prompt and all(isinstance(i, Mapping) for i in prompt))
    )
