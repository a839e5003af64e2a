"""`load_model`: a checkpoint folder or hub id -> a `Decoder` with its weights in place.

The decoder is built without memory (meta device), every tensor is checked against it before any
is read, and then the files are streamed into it tensor by tensor: the peak is the model itself.
Only safetensors are read and no code of a checkpoint is ever run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from dlm.errors import InvalidRequest, unknown_name
from dlm.model.config_reader import read_spec
from dlm.model.decoder import Decoder
from dlm.model.moe import MoE
from dlm.model.offload import device_map, dispatch, fits
from dlm.model.spec import ModelSpec
from dlm.model.weights import Weights, check_no_pointer

DTYPES: Final[Mapping[str, torch.dtype]] = {
    name: getattr(torch, name) for name in ("float32", "bfloat16", "float16", "float64")
}
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
# The files of a hub repository that are fetched: never pickles, never code.
HUB_WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")
HUB_JSON = ("config.json", "generation_config.json", "special_tokens_map.json", "added_tokens.json")
HUB_FILES = (*HUB_JSON, "tokenizer*", "vocab*", "merges.txt", "chat_template*")


def load_model(
    source: str | Path,
    *,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Decoder:
    """A decoder with the weights of `source`, ready for inference.

    `device` "auto" is the first CUDA device or else the CPU; a model that is too large for it
    keeps its last layers in main memory. `dtype` "auto" is float32 on the CPU and the dtype of the
    files elsewhere. `overrides` corrects errors of the files: "family" and the fields of
    `config_reader.OVERRIDABLE` (mask_id, eos_ids, shift, attention, block_length, ...).

    Raises `InvalidRequest` for each way in which `source` may be unusable.
    """
    target = _device(device)
    folder = checkpoint_folder(source, revision)
    config = _read_json(folder / "config.json")
    spec = spec_of(folder, overrides)
    with closing(Weights(folder)) as weights:
        decoder = _empty_decoder(spec)
        places = weights.places(decoder, config)
        where = {"": target}
        kind = _dtype(dtype, target, weights.dtype)
        if not fits(decoder, kind, target):
            where = device_map(decoder, kind, target)
        _allocate(decoder, kind, where)
        weights.fill(decoder, places)
    dispatch(decoder, where, target)
    return decoder.eval()


def spec_of(folder: Path, overrides: Mapping[str, Any] | None = None) -> ModelSpec:
    """The spec of a checkpoint folder, with the caller's corrections."""
    path = folder / "config.json"
    return read_spec(
        _read_json(path),
        _read_json(folder / "generation_config.json", optional=True),
        added_tokens(folder),
        overrides,
        str(path),
    )


def parameter_count(spec: ModelSpec) -> int:
    """The number of parameters of a decoder of this shape, a tied head counted once."""
    return sum(parameter.numel() for parameter in _empty_decoder(spec).parameters())


def checkpoint_folder(
    source: str | Path, revision: str | None = None, *, weights: bool = True
) -> Path:
    """The local folder of `source`, fetched if it is a hub id; `weights`: with them, too.

    Raises `InvalidRequest`.
    """
    if not str(source).strip():
        raise InvalidRequest("model", "must be a folder or a hub id 'owner/name', got ''")
    path = Path(source).expanduser()
    if path.exists():
        if revision is not None:
            raise InvalidRequest(
                "revision", f"applies to hub ids only, but {source} is a local path"
            )
        if not (path / "config.json").is_file():
            raise InvalidRequest(
                "model", f"{path} is not a checkpoint folder: it has no config.json"
            )
        return path
    if isinstance(source, Path) or not HUB_ID.fullmatch(source):
        raise InvalidRequest(
            "model", f"must be a folder or a hub id 'owner/name', but {source} does not exist"
        )
    return _fetch(source, revision, HUB_FILES + (HUB_WEIGHTS if weights else ()))


def _fetch(source: str, revision: str | None, files: Sequence[str]) -> Path:
    """Download the checkpoint `owner/name`, or find it in the local hub cache."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(source, revision=revision, allow_patterns=list(files))
    except Exception as error:  # a dozen classes, from "offline" to "gated": one sentence for all
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InvalidRequest(
            "model", f"{source!r} is no folder here and could not be fetched from the hub: {reason}"
        ) from error
    return checkpoint_folder(Path(folder))


def added_tokens(folder: Path) -> dict[str, int]:
    """Tokens beside the tokenizer's vocabulary (the special tokens among them) -> ids."""
    name = "added_tokens.json"
    try:
        table = {
            str(token): int(index)
            for token, index in _read_json(folder / name, optional=True).items()
        }
        name = "tokenizer_config.json"
        decoder = _read_json(folder / name, optional=True).get("added_tokens_decoder") or {}
        table |= {entry["content"]: int(token) for token, entry in decoder.items()}
        name = "tokenizer.json"
        listed = _read_json(folder / name, optional=True).get("added_tokens") or []
        return table | {entry["content"]: int(entry["id"]) for entry in listed}
    except InvalidRequest:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(
            "model", f"{folder / name} lists added tokens in no known form: {error!r}"
        ) from error


def _read_json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """The object in a JSON file; `{}` if it is optional and absent. Raises `InvalidRequest`."""
    if optional and not path.is_file():
        return {}
    check_no_pointer(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidRequest("model", f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise InvalidRequest(
            "model", f"{path} must hold a JSON object, got {type(content).__name__}"
        )
    return content


def _device(name: str) -> torch.device:
    """The device called `name`. Raises `InvalidRequest` when this machine does not have it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise InvalidRequest("device", f"must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}")
    device = torch.device(name)
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise InvalidRequest(
            "device", f"{name!r} is not here: this machine has {count} CUDA devices"
        )
    return device


def _dtype(asked: str | torch.dtype, device: torch.device, stored: torch.dtype) -> torch.dtype:
    """The dtype of the weights: as asked, or float32 on the CPU and `stored` elsewhere."""
    name = str(asked).removeprefix("torch.")
    if name == "auto":
        return torch.float32 if device.type == "cpu" else stored
    if name not in DTYPES:
        raise unknown_name("dtype", str(asked), ("auto", *DTYPES))
    return DTYPES[name]


def _empty_decoder(spec: ModelSpec) -> Decoder:
    """The decoder without memory for its weights."""
    with torch.device("meta"):
        return Decoder(spec)


def _allocate(decoder: Decoder, dtype: torch.dtype, where: Mapping[str, torch.device]) -> None:
    """Give every parameter uninitialised memory on the device of its longest prefix in `where`."""
    for name, meta in list(decoder.named_parameters()):
        prefix = max((p for p in where if not p or f"{name}.".startswith(f"{p}.")), key=len)
        owner, _, leaf = name.rpartition(".")
        kind = torch.float32 if leaf in MoE.FLOAT32 else dtype
        memory = torch.empty(meta.shape, dtype=kind, device=where[prefix])
        setattr(decoder.get_submodule(owner), leaf, nn.Parameter(memory, requires_grad=False))
    if decoder.spec.tied_head:
        decoder.head.weight = decoder.embedding.weight
