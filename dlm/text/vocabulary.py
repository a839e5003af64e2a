"""What `Text` needs of a tokenizer, and the two kinds of files that provide it.

Tokenizer classes of a checkpoint (`auto_map`) are never run: a `tokenizer.json` is read as it is,
`vocab.json` with `merges.txt` as the Qwen2 byte-level BPE (Dream publishes only these two), a lone
`tokenizer.model` by sentencepiece itself.
"""

from __future__ import annotations

import copy
import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from dlm.errors import InvalidRequest

# How tokenizers spell the end of a turn.
TURN_END_TOKENS = ("<|eot_id|>", "<|im_end|>", "<|role_end|>", "<|eot|>")


class Vocabulary(ABC):
    """Ids of strings and strings of ids. `control`: control tokens -> ids; `byte_ids`: id -> byte.

    `template` is the chat template (Jinja source), `variables` are the token names it may use.
    """

    control: Mapping[str, int]
    byte_ids: Mapping[int, int]
    template: str | None
    variables: Mapping[str, str]

    @abstractmethod
    def encode(self, text: str, *, control: bool, begin: bool) -> list[int]:
        """Ids of `text`; spelled control tokens count if `control`, else they are plain text.

        `begin`: add what the tokenizer adds to a plain text (often a begin-of-text token).
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, among which are no control tokens."""

    @abstractmethod
    def each(self) -> list[str]:
        """The text of every id by itself."""

    @abstractmethod
    def pieces(self) -> list[str]:
        """Every id as the tokenizer's own files spell it; no two are the same."""


class HubVocabulary(Vocabulary):
    """A tokenizer in the format of the `tokenizers` library."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        tokenizer.model_max_length = sys.maxsize  # lengths are the engine's business: no warnings
        added = tokenizer.added_tokens_decoder.items()
        self.control = {token.content: index for index, token in added if token.special}
        self.byte_ids = _byte_ids(tokenizer)
        self.template = tokenizer.get_chat_template() if tokenizer.chat_template else None
        self.variables = {
            name: str(token)
            for name, token in tokenizer.special_tokens_map.items()
            if isinstance(token, str)
        }

    @cached_property
    def _literal(self) -> Any:
        """A tokenizer for text that spells control tokens.

        The switch is a state of the tokenizer; two objects that never flip it are safe in threads.
        """
        return copy.deepcopy(self._tokenizer)

    def encode(self, text: str, *, control: bool, begin: bool) -> list[int]:
        """See `Vocabulary`."""
        literal = not control and any(token in text for token in self.control)
        tokenizer = self._literal if literal else self._tokenizer
        ids: list[int] = tokenizer.encode(
            text, add_special_tokens=begin, split_special_tokens=literal
        )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """See `Vocabulary`."""
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def each(self) -> list[str]:
        """See `Vocabulary`."""
        singles = [[index] for index in range(len(self._tokenizer))]
        texts: list[str] = self._tokenizer.backend_tokenizer.decode_batch(
            singles, skip_special_tokens=False
        )
        return texts

    def pieces(self) -> list[str]:
        """See `Vocabulary`."""
        pieces: list[str] = self._tokenizer.convert_ids_to_tokens(list(range(len(self._tokenizer))))
        return pieces


class SentencePieceVocabulary(Vocabulary):
    """A sentencepiece `tokenizer.model` without anything of `tokenizers` beside it."""

    def __init__(self, model: Path, settings: Mapping[str, Any]) -> None:
        import sentencepiece

        self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
        ids = range(self._pieces.get_piece_size())
        marks = [i for i in ids if self._pieces.is_control(i) or self._pieces.is_unknown(i)]
        self.control = {self._pieces.id_to_piece(i): i for i in marks}
        self.byte_ids = {
            i: int(self._pieces.id_to_piece(i)[1:-1], 16) for i in ids if self._pieces.is_byte(i)
        }
        self.template = settings.get("chat_template")
        self.variables = {
            name: token["content"] if isinstance(token, Mapping) else token
            for name, token in settings.items()
            if name.endswith("_token") and isinstance(token, str | Mapping)
        }
        bos = self._pieces.bos_id()
        self._begin = [bos] if bos >= 0 and settings.get("add_bos_token", True) else []
        longest_first = sorted(map(re.escape, self.control), key=len, reverse=True)
        self._marks = re.compile(f"({'|'.join(longest_first)})")

    def encode(self, text: str, *, control: bool, begin: bool) -> list[int]:
        """See `Vocabulary`. Sentencepiece itself never reads a control token in a text."""
        ids = list(self._begin) if begin else []
        for part in self._marks.split(text) if control else [text]:
            ids += [self.control[part]] if part in self.control and control else self._text(part)
        return ids

    def _text(self, part: str) -> list[int]:
        ids: list[int] = self._pieces.encode(part)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """See `Vocabulary`."""
        text: str = self._pieces.decode(list(ids))
        return text

    def each(self) -> list[str]:
        """See `Vocabulary`."""
        return [self._pieces.decode([i]) for i in range(self._pieces.get_piece_size())]

    def pieces(self) -> list[str]:
        """See `Vocabulary`."""
        return [self._pieces.id_to_piece(i) for i in range(self._pieces.get_piece_size())]


def load_vocabulary(folder: Path) -> Vocabulary | None:
    """The tokenizer in `folder`, None if there is none. Raises `InvalidRequest` if it is broken."""
    try:
        if (folder / "tokenizer.json").is_file():
            from transformers import PreTrainedTokenizerFast

            return HubVocabulary(PreTrainedTokenizerFast.from_pretrained(folder))
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            from transformers import Qwen2Tokenizer

            return HubVocabulary(Qwen2Tokenizer.from_pretrained(folder))
        if (folder / "tokenizer.model").is_file():
            return SentencePieceVocabulary(folder / "tokenizer.model", _settings(folder))
    except Exception as error:  # the libraries raise bare Exception on a malformed file
        raise InvalidRequest(
            "model", f"the tokenizer in {folder} cannot be read: {error}"
        ) from error
    return None


def _settings(folder: Path) -> dict[str, Any]:
    """`tokenizer_config.json`, with the template of `chat_template.jinja` if there is one."""
    config, template = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    settings: dict[str, Any] = json.loads(config.read_text("utf-8")) if config.is_file() else {}
    if template.is_file():
        settings["chat_template"] = template.read_text("utf-8")
    return settings


def _byte_ids(tokenizer: Any) -> dict[int, int]:
    """Id -> byte of a BPE with byte fallback; empty for other kinds (byte-level ones need none)."""
    if "ByteFallback" not in repr(tokenizer.backend_tokenizer.decoder):
        return {}
    table = tokenizer.get_vocab()
    found = {table.get(f"<0x{byte:02X}>"): byte for byte in range(256)}
    return {} if None in found else found
