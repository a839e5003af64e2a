"""Infill: what of an answer is given, and what is left to fill.

`infill` is a text with holes, a list of ids where None is open, or a map from offsets to the texts
or ids that stand there. All become one tuple over the canvas behind the prompt: an id, or None. The
mask's own id is open too, as in the code of LLaDA, Dream and MDLM. Texts come back unchanged: each
is encoded as part of a longer text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from dlm.config import BoundConfig, GenerationConfig, bind
from dlm.core import ModelInfo
from dlm.errors import InvalidRequest
from dlm.text import Text, no_tokenizer, parse_holes

Pinned = tuple[int | None, ...]
"""The canvas behind the prompt: ids that are pinned there, None where it is open."""


def bind_request(config: GenerationConfig, text: Text | None, info: ModelInfo) -> BoundConfig:
    """Bind a config together with what its `infill` gives. Raises `InvalidRequest`."""
    config, pinned = resolve(config, text, info)
    bound = bind(config, info, pinned)
    _check_stops(bound, text)
    return bound


def resolve(
    config: GenerationConfig, text: Text | None, info: ModelInfo
) -> tuple[GenerationConfig, Pinned]:
    """The config with its length, and what is given of the canvas (nothing: an empty tuple).

    Raises `InvalidRequest` when there is nothing to fill, when what is given does not fit in
    `max_new_tokens`, and for a text where the model has no tokenizer.
    """
    infill = config.infill
    if infill is None:
        return config, ()
    if isinstance(infill, Mapping):
        assert config.max_new_tokens is not None
        pinned = _constrained(infill, config.max_new_tokens, text, info)
    elif isinstance(infill, str):
        pinned = []
        for part in parse_holes("infill", infill):
            pinned += _encoded(part, text, info) if isinstance(part, str) else [None] * part
    else:
        pinned = list(infill)
    info.check_ids("infill", (token for token in pinned if token is not None))
    pinned = [None if token == info.mask_id else token for token in pinned]
    length = len(pinned) if config.max_new_tokens is None else config.max_new_tokens
    if length < len(pinned):
        raise InvalidRequest(
            "max_new_tokens",
            f"must be at least the {len(pinned)} positions of `infill`, got {length}",
        )
    pinned += [None] * (length - len(pinned))
    if None not in pinned:
        raise InvalidRequest("infill", "must leave something open: write holes as [[mask:24]]")
    return replace(config, max_new_tokens=length), tuple(pinned)


def _check_stops(bound: BoundConfig, text: Text | None) -> None:
    """Stop strings need a tokenizer, and must not stand in what is given: they would end it."""
    if bound.stop_strings and text is None:
        raise no_tokenizer("stop")
    for is_open, run in groupby(bound.pinned, lambda token: token is None):
        ids = () if is_open else [token for token in run if token is not None]
        shown = "" if text is None else text.decode_inside(ids)
        for string in bound.stop_strings:
            if string in shown:
                raise InvalidRequest(
                    "stop",
                    f"the string {string!r} stands in `infill` and would end the answer there",
                )


def check_encoded(param: str, ids: Iterable[int], text: Text, info: ModelInfo) -> None:
    """Raise `InvalidRequest` where a tokenizer makes ids of a text that the model does not have."""
    for token in ids:
        if token >= info.vocab_size:
            piece = text.vocabulary.pieces()[token]
            raise InvalidRequest(
                param,
                f"holds {piece!r}, which the tokenizer gives the id {token}, and the model has "
                f"only {info.vocab_size} embeddings",
            )


def _encoded(piece: Any, text: Text | None, info: ModelInfo) -> list[int | None]:
    """The ids of a text, or ids as they are."""
    if isinstance(piece, int):
        return [piece]
    if not isinstance(piece, str):
        return list(piece)
    if text is None:
        raise no_tokenizer("infill")
    ids = text.encode_inside(piece, "infill")
    check_encoded("infill", ids, text, info)
    return list(ids)


def _constrained(
    pieces: Mapping[int, str | int | Sequence[int]],
    length: int,
    text: Text | None,
    info: ModelInfo,
) -> list[int | None]:
    """Texts and ids at their offsets, and nothing else."""
    pinned: list[int | None] = [None] * length
    for offset, piece in sorted(pieces.items()):
        ids = _encoded(piece, text, info)
        if offset + len(ids) > length:
            raise InvalidRequest(
                "infill",
                f"{piece!r} at {offset} needs {len(ids)} positions, but `max_new_tokens` ends the "
                f"canvas at {length}",
            )
        if any(token is not None for token in pinned[offset : offset + len(ids)]):
            raise InvalidRequest("infill", f"{piece!r} at {offset} overlaps what stands before it")
        pinned[offset : offset + len(ids)] = ids
    return pinned
