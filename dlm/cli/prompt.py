"""From arguments and stdin to the engine's prompt."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import dlm
from dlm.errors import InvalidRequest, require_text


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt with its system message; `raw`: without the chat template."""

    text: str
    system: str | None
    raw: bool

    def for_engine(self, engine: dlm.Engine) -> Any:
        """Text, messages, or the ids of a raw text.

        Raises `InvalidRequest` for a model without a tokenizer.
        """
        if engine.text is None:
            rule = "came without a tokenizer: add tokenizer.json or tokenizer.model to its folder"
            raise InvalidRequest("model", f"{engine.name} {rule}")
        if self.raw:
            return engine.text.encode_prompt(self.text, chat=False)
        if self.system is None:
            return self.text
        turns = (("system", self.system), ("user", self.text))
        return [{"role": role, "content": content} for role, content in turns]


def read_prompt(
    prompt: str | None, system: str | None, *, raw: bool, may_be_empty: bool = False
) -> Request:
    """The prompt of the arguments, or of stdin when there is none or it is `-`.

    One line end at the end of stdin is not part of it. Raises `InvalidRequest`.
    """
    if raw and system is not None:
        raise InvalidRequest("system", "needs the chat template, which `raw` leaves out")
    text = _stdin() if prompt is None or prompt == "-" else require_text("prompt", prompt)
    if not text.strip() and not may_be_empty:
        raise InvalidRequest("prompt", "must not be empty: give it as an argument or on stdin")
    return Request(text, None if system is None else require_text("system", system), raw)


def _stdin() -> str:
    if sys.stdin is None:
        return ""
    if sys.stdin.isatty():
        print("dlm: type the prompt, then Ctrl-D on a line of its own", file=sys.stderr)
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest("prompt", f"stdin must be UTF-8 text: {error}") from error
    return text.removesuffix("\n").removesuffix("\r")
