"""Binding a request: the ids of its prompt, and what of its answer is given.

`infill` is a text with holes, a list of ids where None is open, or a map from offsets to the texts
or ids that stand there. All become one tuple over the canvas after the prompt: an id, or None. The
mask's own id is open too, as in the code of LLaDA, Dream and MDLM. Texts come back unchanged: each
is encoded as part of a longer text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, cast

from dlm.config import BoundConfig, GenerationConfig, bind
from dlm.core import ModelInfo
from dlm.errors import InvalidRequest
from dlm.text import Text, no_tokenizer, parse_holes
from dlm.text.prompts import Prompt, is_ids, one_prompt

Pinned = tuple[int | None, ...]
"""The canvas after the prompt: ids that are pinned there, None where it is open."""


def bind_request(
    config: GenerationConfig,
    text: Text | None,
    info: ModelInfo,
    committed: Sequence[int | None] = (),
) -> BoundConfig:
    """Bind a config together with what its `infill` pins.

    `committed`: ids that stand after the prompt from the start and may be revised, None where it is
    open. Raises `InvalidRequest`.
    """
    config, pinned = resolve(config, text, info)
    if config.start is not None:
        if committed:
            raise InvalidRequest("start", "begins the answer as `canvas` does: give one of them")
        config, committed = _started(config, text, info)
    if committed:
        config, committed = _padded("canvas", list(committed), config)
    bound = bind(config, info, pinned, tuple(committed))
    _check_stops(bound, text)
    return bound


def _started(
    config: GenerationConfig, text: Text | None, info: ModelInfo
) -> tuple[GenerationConfig, list[int | None]]:
    """The config and the canvas of a request that begins with an earlier answer.

    Where nothing else is asked for, doubtful tokens are reconsidered, all at once if the model sees
    the whole canvas. After a text stand end ids.
    """
    assert config.start is not None
    assert config.max_new_tokens is not None
    found = given_ids("start", config.start, 0, text, info)
    if not found:
        raise InvalidRequest("start", "must not be empty")
    if isinstance(config.start, str) and info.eos_ids:
        found += [info.eos_ids[0]] * (config.max_new_tokens - len(found))
    edit, blocks = "reconsider" if config.edit is None else config.edit, config.blocks
    if blocks is None and config.preset is None and info.attention == "full":
        blocks = "whole"
    return replace(config, edit=edit, blocks=blocks), found


def given_ids(
    param: str,
    value: str | Sequence[int | None] | Mapping[int, Any],
    length: int,
    text: Text | None,
    info: ModelInfo,
) -> list[int | None]:
    """The ids of a text with holes, of a list with None, or of a map from offsets below `length`.

    None stands for open, and so does the mask's own id. Raises `InvalidRequest` that names `param`.
    """
    if isinstance(value, Mapping):
        found = _constrained(value, length, text, info)
    elif isinstance(value, str):
        found = []
        for part in parse_holes(param, value):
            found += _encoded(part, text, info, param) if isinstance(part, str) else [None] * part
    else:
        found = list(value)
    info.check_ids(param, (token for token in found if token is not None))
    return [None if token == info.mask_id else token for token in found]


def resolve(
    config: GenerationConfig, text: Text | None, info: ModelInfo
) -> tuple[GenerationConfig, Pinned]:
    """The config with its length, and what is given of the canvas (nothing: an empty tuple).

    Raises `InvalidRequest` when there is nothing to fill, when what is given does not fit in
    `max_new_tokens`, and for a text where the model has no tokenizer.
    """
    if config.infill is None:
        return config, ()
    found = given_ids("infill", config.infill, config.max_new_tokens or 0, text, info)
    full = InvalidRequest("infill", "must leave something open: write holes as [[mask:24]]")
    if None not in found and config.max_new_tokens is None:
        raise full
    config, pinned = _padded("infill", found, config)
    if None not in pinned:
        raise full
    return config, pinned


def _padded(
    param: str, found: list[int | None], config: GenerationConfig
) -> tuple[GenerationConfig, Pinned]:
    """The config with its length, and `found` with open positions up to it."""
    length = len(found) if config.max_new_tokens is None else config.max_new_tokens
    if length < len(found):
        raise InvalidRequest(
            "max_new_tokens",
            f"must be at least the {len(found)} positions of `{param}`, got {length}",
        )
    rest = (None,) * (length - len(found))
    return replace(config, max_new_tokens=length), (*found, *rest)


def _check_stops(bound: BoundConfig, text: Text | None) -> None:
    """Stop strings need a tokenizer, and must not stand in what is given: they would end it."""
    if bound.stop_strings and text is None:
        raise InvalidRequest(
            "stop", "stop strings need a tokenizer, and this model came without one"
        )
    for is_open, run in groupby(bound.pinned, lambda token: token is None):
        ids = () if is_open else [token for token in run if token is not None]
        shown = "" if text is None else text.decode_inside(ids)
        for string in bound.stop_strings:
            if string in shown:
                raise InvalidRequest(
                    "stop",
                    f"the string {string!r} stands in `infill` and would end the answer there",
                )


def prompt_ids(
    prompt: Prompt, text: Text | None, info: ModelInfo, pinned: Pinned = ()
) -> tuple[int, ...]:
    """The ids of a prompt. Where something is `pinned` it may be empty, and is then raw text.

    Raises `InvalidRequest` for an empty one otherwise, for ids that the model does not have, and
    for a text where the model has no tokenizer.
    """
    asked = one_prompt(prompt)
    if is_ids(asked):
        ids = tuple(asked)
        info.check_ids("prompt", ids)
    elif text is None:
        raise no_tokenizer("prompt")
    else:
        written = cast("str | Sequence[Mapping[str, Any]]", asked)
        ids = tuple(text.encode_prompt(written, chat=bool(written or not pinned)))
        _check_encoded("prompt", ids, text, info)
    if not ids and (not pinned or (info.shift and pinned[0] is None)):
        raise InvalidRequest("prompt", "must not be empty")
    return ids


def _check_encoded(param: str, ids: Iterable[int], text: Text, info: ModelInfo) -> None:
    """Raise `InvalidRequest` where a tokenizer makes ids of a text that the model does not have."""
    for token in ids:
        if token >= info.vocab_size:
            piece = text.vocabulary.pieces()[token]
            raise InvalidRequest(
                param,
                f"holds {piece!r}, which the tokenizer gives the id {token}, and the model has "
                f"only {info.vocab_size} embeddings",
            )


def _encoded(
    piece: Any, text: Text | None, info: ModelInfo, param: str = "infill"
) -> list[int | None]:
    """The ids of a text, or ids as they are."""
    if isinstance(piece, int):
        return [piece]
    if not isinstance(piece, str):
        return list(piece)
    if text is None:
        raise no_tokenizer(param)
    ids = text.encode_inside(piece, param)
    _check_encoded(param, ids, text, info)
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
