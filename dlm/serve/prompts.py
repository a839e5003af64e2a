"""From the prompts of a body to token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlm.serve.errors import refused
from dlm.serve.schemas import Message
from dlm.serve.service import Service


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a body.

    ids: its tokens
    field: of the body that it stands in
    warnings: the parts of it that the chat template leaves out
    talk: its messages, where they alone give the ids
    words: of the user (None: they are not known)
    """

    ids: Sequence[int]
    field: str
    warnings: tuple[str, ...] = ()
    talk: Sequence[Mapping[str, str]] | None = None
    words: str | None = None

    @property
    def asked(self) -> Any:
        """The prompt as a search takes it, whose verifiers may speak about the messages."""
        return list(self.ids) if self.talk is None else list(self.talk)


def messages_of(given: Sequence[Message], field: str = "messages") -> list[dict[str, str]]:
    """The messages as chat templates take them, texts alone. Raises `ApiError` 400.

    field: of the body that they stand in
    """
    return [
        {
            "role": "system" if message.role == "developer" else message.role,
            "content": _text_of(message, f"{field}[{index}].content"),
        }
        for index, message in enumerate(given)
    ]


def _text_of(message: Message, where: str) -> str:
    """The text of a message: as it is, or the parts one after another."""
    if message.content is None:
        raise refused(where, f"`{where}`: is required")
    if isinstance(message.content, str):
        return message.content
    for index, part in enumerate(message.content):
        param = f"{where}[{index}]"
        if part.type not in ("text", "input_text", "output_text"):
            rule = "must be text, {'type': 'text', 'text': ...}"
            raise refused(param, f"`{param}`: {rule}, got a part of type {part.type[:40]!r}")
        if part.text is None:
            raise refused(f"{param}.text", f"`{param}.text`: is required")
    return "".join(part.text or "" for part in message.content)


def chat_prompt(
    service: Service,
    messages: Sequence[dict[str, str]],
    variables: dict[str, Any] | None = None,
    field: str = "messages",
) -> Prompt:
    """The prompt of a talk, through the chat template. Work for a thread of its own.

    variables: for the template
    field: of the body that the talk stands in
    """
    text, content = service.require_text(field), "".join(m["content"] for m in messages)
    if variables or len(content) > service.max_length:  # else it is short enough
        service.check_size(field, text.render(messages, variables))
    ids, missing = text.encode_messages(messages, variables)
    warnings = tuple(f"the chat template does not show {name}" for name in missing)
    said = [message["content"] for message in messages if message["role"] == "user"]
    talk = None if variables else messages
    return Prompt(ids, field, warnings, talk, said[-1] if said else None)


def plain_prompt(service: Service, prompt: str | Sequence[int]) -> Prompt:
    """The prompt of a text that is continued, or of ids. Work for a thread of its own."""
    if isinstance(prompt, str):
        service.check_size("prompt", prompt)
        ids: Sequence[int] = service.require_text().encode_prompt(prompt, chat=False)
    else:
        ids = prompt
    if not ids:
        raise refused("prompt", "`prompt`: must have at least one token")
    return Prompt(ids, "prompt", words=prompt if isinstance(prompt, str) else None)


def suffix_ids(service: Service, suffix: str) -> list[int]:
    """The ids of the text after a gap. Work for a thread of its own."""
    service.check_size("suffix", suffix)
    return list(service.require_text("suffix").encode_inside(suffix, "suffix"))
