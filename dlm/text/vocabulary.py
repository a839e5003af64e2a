"""`Vocabulary`: what `Text` needs of a tokenizer, over transformers' own classes."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

from dlm.errors import InvalidRequest
from dlm.text.control import control_tokens
from dlm.text.marks import Marker, show
from dlm.text.prefixes import only_at_the_start, without_prefixes

ANCHORS: Final = ("a", "x", "e", "t", "0", "1", ".", "-")
"""Characters that precede texts and ids that do not begin a text."""
UNKNOWN: Final = "\U0010fffd \U00012000 \u16a0"
"""Characters that hardly a vocabulary has: private, cuneiform, runic."""


class Vocabulary:
    """Ids of strings and strings of ids. Safe to share between threads.

    control: control tokens -> ids
    control_ids: these ids
    byte_ids: id -> byte of a tokenizer with byte fallback
    template: the chat template (Jinja source)
    variables: names of tokens that the template may use
    marker: hides control tokens

    `ids`: those that the model's own files name as mask, end, beginning or padding.
    """

    def __init__(self, tokenizer: Any, template: str | None, ids: Collection[int] = ()) -> None:
        self._tokenizer = tokenizer
        self.template = template
        self.variables = {
            name: str(token)
            for name, token in tokenizer.special_tokens_map.items()
            if isinstance(token, str)
        }
        self.control = control_tokens(tokenizer, template, ids)
        self.control_ids = frozenset(self.control.values())
        _flag(tokenizer, self.control)
        self.byte_ids = _byte_ids(tokenizer)
        self.marker = Marker(self.control)
        # What stands for unknown characters comes from plain text, and is no control token there.
        unknown = {tokenizer.unk_token_id, *_ids(tokenizer, UNKNOWN)}
        unknown -= {tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id, *ids}
        self._never = self.control_ids - unknown

    def encode(self, text: str, *, control: bool, begin: bool) -> list[int]:
        """Ids of `text` by itself; spelled control tokens count if `control`, else they are text.

        `begin`: with the tokens that the tokenizer adds to a plain text (often a begin-of-text
        token). Raises `InvalidRequest` for "prompt" if the tokenizer can only make a control token
        of a text.
        """
        if control:
            return _ids(self._tokenizer, text, begin=begin)
        plain = self._alone(text)
        ids = self._spelled_out(plain)
        if not begin:
            return ids
        whole = self._alone(text, begin=True)
        starts = range(len(whole) - len(plain) + 1 if plain else 0)
        at = next((n for n in starts if whole[n : n + len(plain)] == plain), 0)
        return [*whole[:at], *ids, *whole[at + len(plain) :]]

    def encode_inside(self, text: str, param: str = "prompt") -> list[int]:
        """Ids of `text` as part of a longer text: `decode_inside` gives it back unchanged.

        Raises `InvalidRequest` for `param` if the tokenizer cannot write it so.
        """
        first: str | None = None
        for candidate in self._inside_ids(text):
            ids = self._spelled_out(candidate, param)
            found = self.decode_inside(ids)
            if found == text:
                return ids
            first = found if first is None else first
        raise InvalidRequest(
            param, f"this tokenizer cannot write {text!r}: it comes back as {first!r}"
        )

    def encode_marked(self, text: str) -> list[int]:
        """Ids of a chat whose control tokens count, except those that `marker` has hidden."""
        plain, spelled = show(text), self.marker.spelled.findall(text)
        if spelled == self.marker.spelled.findall(plain):
            ids = _ids(self._tokenizer, plain)
            if [i for i in ids if i in self._never] == self._ids_of_spelled(spelled):
                return ids
        return [*self._sections(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids` by themselves, among which are no control tokens.

        Ids that no piece has are left out.
        """
        known = [i for i in ids if i >= 0]
        if not hasattr(self._tokenizer, "backend_tokenizer"):
            known = [i for i in known if i < self._size]
        text: str = self._tokenizer.decode(
            known, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def decode_inside(self, ids: Sequence[int]) -> str:
        """The text of `ids` as part of a longer text: a space that they begin with is kept."""
        if self._anchor is None:
            return self.decode(ids)
        index, text = self._anchor
        return self.decode([index, *ids]).removeprefix(text)

    def each(self) -> list[str]:
        """The text of every id by itself."""
        singles = [[index] for index in range(self._size)]
        if not hasattr(self._tokenizer, "backend_tokenizer"):
            return [self.decode(single) for single in singles]
        backend = self._tokenizer.backend_tokenizer
        texts: list[str] = backend.decode_batch(singles, skip_special_tokens=False)
        return texts

    def pieces(self) -> list[str | None]:
        """Every id as the tokenizer's own files spell it, None if it has no piece."""
        pieces: list[str | None] = self._tokenizer.convert_ids_to_tokens([*range(self._size)])
        return pieces

    @cached_property
    def _size(self) -> int:
        """One more than the highest id."""
        return 1 + max(self._tokenizer.get_vocab().values(), default=-1)

    # Whether spelled control tokens count, and what is put before a text, are states of a
    # tokenizer: each of these objects keeps its own. They are copied when they are needed.

    @cached_property
    def _literal(self) -> Any:
        """The tokenizer for text whose spelled control tokens are text."""
        return copy.deepcopy(self._tokenizer)

    @cached_property
    def _bare(self) -> Any | None:
        """The tokenizer that puts nothing before a text, None if that is the same."""
        return without_prefixes(self._tokenizer)

    @cached_property
    def _bare_later(self) -> bool:
        """True if only the beginning of the whole text gets a prefix."""
        return only_at_the_start(self._tokenizer)

    def _alone(self, text: str, *, begin: bool = False) -> list[int]:
        """Ids of a text by itself, whose spelled control tokens are text."""
        if self.marker.spelled.search(text):
            return _ids(self._literal, text, literal=True, begin=begin)
        return _ids(self._tokenizer, text, begin=begin)

    def _going_on(self, text: str) -> list[int]:
        """Ids of a text that goes on with another, with nothing put before it."""
        return self._alone(text) if self._bare is None else _ids(self._bare, text, literal=True)

    @cached_property
    def _anchor(self) -> tuple[int, str] | None:
        """An id and its text, after which others can be decoded; None if there is none."""
        for character in ANCHORS:
            for index in self._alone(character)[-1:]:
                text = self.decode([index])
                if text.strip() == character and index not in self.byte_ids:
                    return index, text
        return None

    def _inside_ids(self, text: str) -> Iterator[list[int]]:
        """Ways to encode a text that goes on with another, the best first."""
        yield self._going_on(text)
        yield self._alone(text)
        head, space, tail = text.partition(" ")
        if head and space:  # a pre-tokenizer that drops spaces puts one before each word
            yield self._going_on(head) + self._alone(space + tail)
        for anchor in ANCHORS:
            before, whole = self._alone(anchor), self._alone(anchor + text)
            if whole[: len(before)] == before:
                yield whole[len(before) :]

    def _sections(self, text: str) -> Iterator[int]:
        """Ids of a marked text, cut at its control tokens, whose rests are plain text."""
        flags = {token.content: token for token in self._tokenizer.added_tokens_decoder.values()}
        places = [(m.start(), m.end(), m[0]) for m in self.marker.spelled.finditer(text)]
        edges = [(0, 0, ""), *places, (len(text), len(text), "")]
        for (_, start, before), (end, _, after) in pairwise(edges):
            yield from self._ids_of_spelled([before] if before else [])
            part = show(text[start:end])
            part = part.lstrip() if before and flags[before].rstrip else part
            part = part.rstrip() if after and flags[after].lstrip else part
            if part:
                later = bool(before) and self._bare_later
                yield from self._spelled_out(self._going_on(part) if later else self._alone(part))

    def _ids_of_spelled(self, tokens: Sequence[str]) -> list[int]:
        """The ids of control tokens that a template writes."""
        return [i for i in map(self.control.__getitem__, tokens) if i in self._never]

    def _spelled_out(self, ids: list[int], param: str = "prompt") -> list[int]:
        """`ids` of a text without control tokens: those that are ordinary pieces of the tokenizer,
        or that it makes of other characters, are written in parts.
        """
        if self._never.isdisjoint(ids):
            return ids
        parts = [self._in_parts(i, param) if i in self._never else [i] for i in ids]
        return [i for part in parts for i in part]

    def _in_parts(self, index: int, param: str) -> list[int]:
        """The text of a control token as the ids of two parts, if possible without losing any."""
        text = self.decode_inside([index])
        cuts = range(1, len(text))
        parts = (self._going_on(text[:cut]) + self._going_on(text[cut:]) for cut in cuts)
        ways = [ids for ids in parts if self._never.isdisjoint(ids)]
        if not ways:
            raise InvalidRequest(
                param,
                f"this tokenizer cannot write {text!r}: it can only read it as a control token",
            )
        return next((ids for ids in ways if self.decode_inside(ids) == text), ways[0])


def _ids(tokenizer: Any, text: str, *, begin: bool = False, literal: bool = False) -> list[int]:
    """The ids from transformers; `literal`: control tokens that `text` spells are text."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=begin, split_special_tokens=literal)
    return ids


def _flag(tokenizer: Any, control: Collection[str]) -> None:
    """Flag all control tokens special, which not all files do: so they can be told from text."""
    from tokenizers import AddedToken

    added = {token.content: token for token in tokenizer.added_tokens_decoder.values()}
    plain = [AddedToken(content) for content in control if content not in added]
    plain += [added[content] for content in control if content in added]
    tokenizer.add_tokens(
        [
            AddedToken(
                token.content,
                single_word=token.single_word,
                lstrip=token.lstrip,
                rstrip=token.rstrip,
                normalized=token.normalized and token.special,
                special=True,
            )
            for token in plain
            if not token.special
        ],
        special_tokens=True,
    )


def _byte_ids(tokenizer: Any) -> dict[int, int]:
    """Id -> byte of a tokenizer with byte fallback; empty for other kinds (byte-level ones need
    none).
    """
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    if "ByteFallback" not in repr(decoder):
        return {}
    table = tokenizer.get_vocab()
    found = {table.get(f"<0x{byte:02X}>"): byte for byte in range(256)}
    return {} if None in found else found
