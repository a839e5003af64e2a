"""`Text`: prompts and messages to ids, ids to text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from dlm.errors import InvalidRequest, unknown_name
from dlm.text.vocabulary import TURN_END_TOKENS, Vocabulary, load_vocabulary

ROLES = ("system", "user", "assistant", "tool")
Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """A tokenizer and its chat template. Safe to share between threads.

    What a user writes never becomes a control token: text that spells `<|mask|>` stays text.
    """

    vocabulary: Vocabulary

    def encode_prompt(
        self,
        prompt: str | Sequence[Message],
        *,
        chat: bool = True,
        control: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """The ids of a prompt.

        Messages `{"role", "content"}` go through the chat template; a final assistant message is
        continued. A string is one user message if there is a template, and raw text if there is
        none or `chat` is False. `control`: control tokens spelled in raw text count, for callers
        that applied a template themselves. `options` are variables for the template
        (`{"enable_thinking": False}`). Raises `InvalidRequest` for "prompt" or "messages".
        """
        if isinstance(prompt, str):
            if not chat or self.vocabulary.template is None:
                return self.vocabulary.encode(prompt, control=control, begin=True)
            prompt = [{"role": "user", "content": prompt}]
        if self.vocabulary.template is None:
            raise InvalidRequest("messages", "need a chat template, and this model has none")
        return self._encode_chat(_checked(prompt), dict(options or {}))

    def _encode_chat(self, messages: list[dict[str, str]], options: dict[str, Any]) -> list[int]:
        """Render the template and tokenise the result, control tokens of the template included.

        The template's control tokens must be read as such, those in the messages must not, and
        both stand in one rendered string. So each control token that a message spells is swapped
        for a numbered mark before rendering; afterwards the string is cut at the marks and the
        spelled tokens are encoded as plain text. All other text is tokenised in one piece with
        its surroundings, exactly as if nothing had been swapped.
        """
        mark = _unused_character(message["content"] for message in messages)
        spelled: list[str] = []

        def swap(match: re.Match[str]) -> str:
            spelled.append(match[0])
            return f"{mark}{len(spelled) - 1}{mark}"

        if self.vocabulary.control:
            longest_first = sorted(self.vocabulary.control, key=len, reverse=True)
            tokens = re.compile("|".join(map(re.escape, longest_first)))
            messages = [m | {"content": tokens.sub(swap, m["content"])} for m in messages]
        parts = re.split(f"{mark}([0-9]+){mark}", self._render(messages, options))
        ids: list[int] = []
        for index, part in enumerate(parts):
            text = spelled[int(part)] if index % 2 else part
            ids += self.vocabulary.encode(text, control=not index % 2, begin=False) if text else []
        return ids

    def render(self, messages: Sequence[Message], options: Mapping[str, Any] | None = None) -> str:
        """The chat template's text for `messages`, for callers that encode it themselves, control
        tokens included (`vocabulary.encode(text, control=True, begin=False)`).

        Raises `InvalidRequest` as `encode_prompt` does.
        """
        if self.vocabulary.template is None:
            raise InvalidRequest("messages", "need a chat template, and this model has none")
        return self._render(_checked(messages), dict(options or {}))

    def _render(self, messages: list[dict[str, str]], options: dict[str, Any]) -> str:
        """The template's text for `messages`, ready for the answer."""
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        resume = messages[-1]["role"] == "assistant"
        try:
            rendered: Any = render_jinja_template(
                [messages],
                chat_template=self.vocabulary.template,
                add_generation_prompt=not resume,
                continue_final_message=resume,
                **{**self.vocabulary.variables, **options},
            )
        except (TemplateError, ValueError, TypeError) as error:
            raise InvalidRequest("messages", f"the chat template refuses: {error}") from error
        text: str = rendered[0][0]
        return text

    def encode(self, text: str) -> list[int]:
        """The ids of `text` alone: nothing is added, spelled control tokens stay text."""
        return self.vocabulary.encode(text, control=False, begin=False)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` without control tokens; bytes that form no character become U+FFFD."""
        skipped = self.special_ids()
        shown = [index for index in ids if index not in skipped]
        return self.vocabulary.decode(_repair(shown, self.vocabulary.byte_ids))

    def special_ids(self) -> frozenset[int]:
        """The ids of the control tokens, which `decode` leaves out."""
        return frozenset(self.vocabulary.control.values())

    def begin_ids(self) -> tuple[int, ...]:
        """The id that the tokenizer has for the beginning of a text, where it has one."""
        index = self.vocabulary.control.get(self.vocabulary.variables.get("bos_token", ""))
        return () if index is None else (index,)

    def end_ids(self) -> tuple[int, ...]:
        """The ids that end an answer: the tokenizer's end of text, and ends of a turn."""
        names = (self.vocabulary.variables.get("eos_token", ""), *TURN_END_TOKENS)
        control = self.vocabulary.control
        return tuple(dict.fromkeys(control[name] for name in names if name in control))

    def delimiter_ids(self, strings: Sequence[str] = ("\n",)) -> tuple[int, ...]:
        """Ids whose text contains one of `strings` (AdaBlock's delimiters)."""
        skipped = self.special_ids()
        return tuple(
            index
            for index, text in enumerate(self.vocabulary.each())
            if index not in skipped and any(string in text for string in strings)
        )


def load_text(folder: str | Path) -> Text | None:
    """The tokenizer of a checkpoint folder, None when it has none (prompts must be ids then).

    Raises `InvalidRequest` when it is there but cannot be read.
    """
    vocabulary = load_vocabulary(Path(folder))
    return None if vocabulary is None else Text(vocabulary)


def _checked(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages with a known role and a text each. Raises `InvalidRequest`."""
    if not isinstance(messages, Sequence) or not messages:
        raise InvalidRequest("messages", f"must be a list with at least one, got {messages!r}")
    checked = []
    for index, message in enumerate(messages):
        name = f"messages[{index}]"
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
            keys = sorted(message) if isinstance(message, Mapping) else message
            raise InvalidRequest(name, f"must have the keys 'role' and 'content', got {keys!r}")
        if message["role"] not in ROLES:
            raise unknown_name(f"{name}.role", str(message["role"]), ROLES)
        if not isinstance(message["content"], str):
            kind = type(message["content"]).__name__
            raise InvalidRequest(f"{name}.content", f"must be a string, got {kind}")
        checked.append({"role": message["role"], "content": message["content"]})
    return checked


def _unused_character(texts: Iterable[str]) -> str:
    """A private-use character that none of `texts` contains."""
    used = set().union(*texts)
    return next(mark for mark in map(chr, range(0xE000, 0xF8FF)) if mark not in used)


def _repair(ids: Sequence[int], byte_ids: Mapping[int, int]) -> list[int]:
    """Replace bytes that form no character by those of U+FFFD, run by run of byte tokens.

    Tokenizers with byte fallback spoil a whole run for one bad byte, so that text once shown could
    change; after the repair the text of a longer list always continues that of a shorter one.
    """
    if not byte_ids:
        return list(ids)
    token_of = {byte: index for index, byte in byte_ids.items()}
    repaired: list[int] = []
    for is_byte, run in groupby(ids, byte_ids.__contains__):
        if is_byte:
            text = bytes(byte_ids[index] for index in run).decode("utf-8", errors="replace")
            repaired += [token_of[byte] for byte in text.encode("utf-8")]
        else:
            repaired += run
    return repaired
