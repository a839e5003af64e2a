"""Loading of auxiliary models: those that read beside the one that is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from dlm.core import STATISTICS
from dlm.decode.auxiliary import Auxiliary, AuxiliaryModel
from dlm.decode.reference import Reference
from dlm.errors import InvalidRequest
from dlm.model.decoder import Decoder
from dlm.model.kv_store import KVPool
from dlm.model.loading import load_model, spec_of
from dlm.model.spec import ModelSpec
from dlm.text import MISSING, Text, id_map, load_text


def load_auxiliary(
    name: str,
    folder: Path,
    decoder: Decoder,
    text: Text | None,
    *,
    dtype: str = "auto",
    kv_bytes: int | None = None,
) -> AuxiliaryModel:
    """A second model beside `decoder`, on the same device: a causal one, which reads what is
    drafted, or a masked one, which reads the canvas for guides.

    `text`: the decoder's tokenizer. Raises `InvalidRequest` when the vocabularies do not match one
    to one, or when one of two masked models has no mask.
    """
    param, device = f"aux[{name!r}]", decoder.embedding.weight.device
    if name in STATISTICS or not name.isidentifier():
        raise InvalidRequest("aux", f"a name must be an identifier and no statistic, got {name!r}")
    spec = spec_of(folder)
    ids = _matching_ids(param, decoder.spec, text, spec, load_text(folder, named_ids(spec)))
    if spec.attention != "causal":
        ends = (*decoder.spec.eos_ids, *(() if text is None else text.end_ids()))
        ids = _with_mask(param, ids, decoder.spec, spec, ends)
    model = load_model(folder, device=str(device), dtype=dtype)
    pool = KVPool(spec, device=device, dtype=model.embedding.weight.dtype, max_bytes=kv_bytes)
    on_device = None if ids is None else torch.tensor(ids, device=device)
    shared = name, model, pool, spec.max_length, on_device, decoder.spec.mask_id
    return Auxiliary(*shared) if spec.attention == "causal" else Reference(*shared, spec=spec)


def is_masked(folder: Path) -> bool:
    """True if the checkpoint in `folder` is a masked diffusion model, by its files."""
    return spec_of(folder).attention != "causal"


def _with_mask(
    param: str,
    ids: list[int] | None,
    spec: ModelSpec,
    other: ModelSpec,
    ends: Sequence[int],
) -> list[int] | None:
    """The other model's `ids` of ours with its mask for ours, however it is spelled.

    `ends`: our end ids. Raises `InvalidRequest` where it lacks them, so that no answer would end.
    """
    if spec.mask_id is None or other.mask_id is None:
        raise InvalidRequest(param, "two masked models must both have a mask token")
    if ids is None and spec.mask_id == other.mask_id:
        return None
    own = list(range(spec.vocab_size)) if ids is None else list(ids)
    own[spec.mask_id] = other.mask_id
    if lost := [end for end in ends if end < len(own) and own[end] == MISSING]:
        raise InvalidRequest(param, f"it has no partner for the end ids {lost}")
    return own


def _matching_ids(
    param: str, spec: ModelSpec, text: Text | None, other: ModelSpec, theirs: Text | None
) -> list[int] | None:
    """The other model's id of each of ours, -1 if it has none; None if they are the same."""
    if text is None or theirs is None:
        if spec.vocab_size != other.vocab_size:
            raise InvalidRequest(
                param,
                f"without tokenizers to compare, the vocabularies must be of one size, "
                f"got {other.vocab_size} and {spec.vocab_size}",
            )
        return None
    ids = id_map(param, text, theirs)[: spec.vocab_size]
    ids += [MISSING] * (spec.vocab_size - len(ids))
    if max(ids) >= other.vocab_size:
        raise InvalidRequest(
            param, f"its tokenizer has ids beyond its {other.vocab_size} embeddings"
        )
    return None if ids == list(range(spec.vocab_size)) else ids


def named_ids(spec: ModelSpec) -> tuple[int | None, ...]:
    """The ids of mask, ends, beginning and padding that a checkpoint's files name."""
    return (spec.mask_id, *spec.eos_ids, spec.bos_id, spec.pad_id)
