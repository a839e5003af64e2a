"""`Text`: prompts and messages to ids, ids to text."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from dlm.errors import InvalidRequest, unknown_name
from dlm.text.control import MASK_TOKENS, TURN_END_TOKENS
from dlm.text.loading import load_template, load_tokenizer
from dlm.text.marks import show
from dlm.text.template import render
from dlm.text.vocabulary import Vocabulary

ROLES = ("system", "user", "assistant", "tool")
SYMBOLS = tuple("0123456789+-*/=<>^%|&~()[]{}")
"""Digits, operators and brackets."""
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
        (`{"enable_thinking": False}`). Warns of messages that the template leaves out. Raises
        `InvalidRequest` for "prompt" or "messages".
        """
        if isinstance(prompt, str):
            _check_unicode("prompt", prompt)
            if not chat or self.vocabulary.template is None:
                return self.vocabulary.encode(prompt, control=control, begin=True)
            prompt = [{"role": "user", "content": prompt}]
        ids, missing = self.encode_messages(prompt, options)
        if missing:
            warning = "the chat template does not show the model the whole of"
            warnings.warn(f"{warning} {', '.join(missing)}", stacklevel=2)
        return ids

    def encode_messages(
        self, messages: Sequence[Message], options: Mapping[str, Any] | None = None
    ) -> tuple[list[int], list[str]]:
        """The ids of messages, and those that the chat template leaves out, as `left_out` gives
        them. `options` and errors as in `encode_prompt`.
        """
        marked = self.render_marked(messages, options)
        return self.vocabulary.encode_marked(marked), self._missing(messages, marked)

    def left_out(self, messages: Sequence[Message]) -> list[str]:
        """The messages that the chat template drops or changes, as "messages[0] (system)"."""
        return self._missing(messages, self.render_marked(messages))

    def _missing(self, messages: Sequence[Message], marked: str) -> list[str]:
        hide = self.vocabulary.marker.hide
        return [
            f"messages[{index}] ({message['role']})"
            for index, message in enumerate(messages)
            if hide(message["content"]).strip() not in marked
        ]

    def render(self, messages: Sequence[Message], options: Mapping[str, Any] | None = None) -> str:
        """The chat template's text for `messages`. Raises `InvalidRequest` as `encode_prompt`."""
        return show(self.render_marked(messages, options))

    def render_marked(
        self, messages: Sequence[Message], options: Mapping[str, Any] | None = None
    ) -> str:
        """The chat template's text for `messages`, in which control tokens that the messages spell
        are hidden: `vocabulary.encode_marked` tells them from the template's. A text after it
        must be hidden too, by `vocabulary.marker`. Errors as in `encode_prompt`.
        """
        template, checked = self.vocabulary.template, _checked(messages)
        if template is None:
            raise InvalidRequest("messages", "need a chat template, and this model has none")
        hidden = [m | {"content": self.vocabulary.marker.hide(m["content"])} for m in checked]
        return render(template, hidden, {**self.vocabulary.variables, **(options or {})})

    def encode(self, text: str) -> list[int]:
        """The ids of `text` by itself, as transformers gives them without special tokens; spelled
        control tokens stay text.
        """
        _check_unicode("text", text)
        return self.vocabulary.encode(text, control=False, begin=False)

    def encode_inside(self, text: str, param: str = "prompt") -> list[int]:
        """The ids of `text` as part of a longer text, where no tokenizer puts anything before it.

        Raises `InvalidRequest` for `param` if it would not come back unchanged.
        """
        _check_unicode(param, text)
        return self.vocabulary.encode_inside(text, param)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` by themselves, as transformers gives it without special tokens; bytes
        that form no character become U+FFFD.
        """
        return self.vocabulary.decode(self._shown(ids))

    def decode_inside(self, ids: Iterable[int]) -> str:
        """The text of `ids` as part of a longer text: as they follow others."""
        return self.vocabulary.decode_inside(self._shown(ids))

    def _shown(self, ids: Iterable[int]) -> list[int]:
        skipped = self.special_ids()
        shown = [index for index in ids if index not in skipped]
        return _repair(shown, self.vocabulary.byte_ids)

    def special_ids(self) -> frozenset[int]:
        """The ids of the control tokens, which `decode` leaves out."""
        return self.vocabulary.control_ids

    def begin_ids(self) -> tuple[int, ...]:
        """The id that the tokenizer has for the beginning of a text, if it has one."""
        index = self.vocabulary.control.get(self.vocabulary.variables.get("bos_token", ""))
        return () if index is None else (index,)

    def end_ids(self) -> tuple[int, ...]:
        """The ids that end an answer: the tokenizer's end of text, and ends of a turn."""
        names = (self.vocabulary.variables.get("eos_token", ""), *TURN_END_TOKENS)
        control = self.vocabulary.control
        return tuple(dict.fromkeys(control[name] for name in names if name in control))

    def mask_tokens(self) -> dict[str, int]:
        """The tokenizer's own mask token, or else all tokens that are spelled as masks are."""
        control, own = self.vocabulary.control, self.vocabulary.variables.get("mask_token", "")
        names = (own,) if own in control else MASK_TOKENS
        return {name: control[name] for name in names if name in control}

    def delimiter_ids(self, strings: Sequence[str] = ("\n",)) -> tuple[int, ...]:
        """Ids whose text contains one of `strings` (AdaBlock's delimiters)."""
        skipped = self.special_ids()
        return tuple(
            index
            for index, text in enumerate(self.vocabulary.each())
            if index not in skipped and any(string in text for string in strings)
        )

    def symbol_ids(self) -> tuple[int, ...]:
        """Ids whose text has a digit, an operator or a bracket: what a step of reasoning hangs on,
        in place of words around it.
        """
        return self.delimiter_ids(SYMBOLS)


def load_text(folder: str | Path, ids: Collection[int | None] = ()) -> Text | None:
    """The tokenizer of a checkpoint folder, None when it has none (prompts must be ids then).

    `ids`: those that the model's own files name as mask, end, beginning and padding; these are
    control tokens too. Raises `InvalidRequest` when the tokenizer is there but cannot be read.
    """
    tokenizer = load_tokenizer(Path(folder))
    if tokenizer is None:
        return None
    template = load_template(Path(folder), tokenizer)
    try:
        vocabulary = Vocabulary(tokenizer, template, {i for i in ids if i is not None})
    except Exception as error:  # the libraries raise bare Exception where a class lacks a piece
        raise InvalidRequest(
            "model", f"the tokenizer in {folder} cannot encode: {error}"
        ) from error
    return Text(vocabulary)


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
        _check_unicode(f"{name}.content", message["content"])
        checked.append({"role": message["role"], "content": message["content"]})
    return checked


def _check_unicode(param: str, text: str) -> None:
    """Refuse halves of surrogate pairs, which are no characters."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            param, f"must be Unicode text, got the lone surrogate {text[error.start]!r}"
        ) from error


def _repair(ids: Sequence[int], byte_ids: Mapping[int, int]) -> list[int]:
    """Replace bytes that form no character by those of U+FFFD, run by run of byte tokens.

    Tokenizers with byte fallback spoil a whole run for one bad byte, so that text once shown could
    change; after the repair the text of a longer list always continues that of a shorter one.
    """
    if byte_ids.keys().isdisjoint(ids):
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
