"""Control tokens: which ids of a tokenizer steer a model, and so are no text.

Files flag them as they like, so that ids and uses count beside the flag.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any, Final

from dlm.text.template import sample_texts

TURN_END_TOKENS: Final = ("<|eot_id|>", "<|im_end|>", "<|role_end|>", "<|eot|>")
"""Spellings of the end of a turn."""
MASK_TOKENS: Final = (
    *("<|mask|>", "<|MASK|>", "<|mdm_mask|>", "<[MASK]>"),
    *("[MASK]", "|<MASK>|", "<mask>", "<M>"),
)
"""Spellings of the mask."""
TEXT_TOKENS: Final = (
    *("<s>", "</s>", "<pad>", "[PAD]", "<|pad|>", "<|startoftext|>", "<|beginoftext|>"),
    *("<|begin_of_text|>", "<|endoftext|>", "<|end_of_text|>"),
)
"""Spellings of the beginning and the end of a text, and of the padding after it."""
BYTE: Final = re.compile("<0x[0-9A-F]{2}>")
TAG: Final = re.compile(r"</?([\w:-]+)>")


def control_tokens(
    tokenizer: Any, template: str | None, ids: Collection[int] = ()
) -> dict[str, int]:
    """Control tokens and their ids, in the order of the ids.

    They are the added tokens that are flagged special, are named by the tokenizer (`eos_token`,
    ...), are spelled as masks and ends usually are, or are written by the chat template; and what
    has one of `ids`, which the model's own files name. Tags that open and close (`<think>`,
    `<tool_call>`) are text, unless flagged: templates write them around text for readers.
    """
    added = tokenizer.added_tokens_decoder
    named = {*tokenizer.all_special_tokens, *TURN_END_TOKENS, *MASK_TOKENS, *TEXT_TOKENS}
    found = {
        token.content: index
        for index, token in added.items()
        if token.special or token.content in named or index in ids
    }
    others = {token.content: index for index, token in added.items() if index not in found.values()}
    likely = [token for token in others if not (_is_text(token) or _is_tag(token, others))]
    if likely and template is not None:
        written = sample_texts(template, tokenizer.special_tokens_map)
        found |= {token: others[token] for token in likely if token in written}
    found |= {piece: index for index, piece in _named_pieces(tokenizer, ids) if index not in added}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _is_text(piece: str) -> bool:
    """True if plain texts may hold a piece: a word, signs alone, or a byte."""
    word = piece.strip("▁Ġ ")
    signs = not any(map(str.isalnum, word))
    return word.isalnum() or signs or BYTE.fullmatch(word) is not None


def _is_tag(token: str, others: Collection[str]) -> bool:
    """True if a token is a tag whose other half is a token too."""
    tag = TAG.fullmatch(token)
    return tag is not None and f"<{tag[1]}>" in others and f"</{tag[1]}>" in others


def _named_pieces(tokenizer: Any, ids: Collection[int]) -> Iterator[tuple[int, str]]:
    """Ordinary pieces that the model's files name as mask, end, beginning or padding.

    Words and signs are text whatever they say: many files pad with id 0, "!" in GPT-2's vocabulary.
    """
    size = len(tokenizer)
    for index in ids:
        piece = tokenizer.convert_ids_to_tokens(index) if index < size else None
        if piece is not None and not _is_text(piece):
            yield index, piece
