"""The safetensors files of a checkpoint: found, checked against a decoder, streamed into it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dlm.errors import InvalidRequest
from dlm.model.config_reader import checkpoint_map
from dlm.model.decoder import Decoder
from dlm.model.families import FAMILIES
from dlm.model.weight_map import ROTARY_TABLE, Place, canonical

FILE_DTYPES: Final[Mapping[str, torch.dtype]] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
INDEX = "model.safetensors.index.json"
POINTER: Final = b"version https://git-lfs"
"""The first bytes of a file whose content Git LFS keeps elsewhere."""


class Weights:
    """The open weight files of one folder; tensors go by their canonical keys.

    Opening maps the files into memory and reads only their headers. Raises `InvalidRequest` for a
    folder without weights, a missing shard and a file that is not sound.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open = ExitStack()
        # canonical key -> (open file, key in the file)
        self._where: dict[str, tuple[Any, str]] = {}
        try:
            for path in weight_files(folder):
                file = self._open.enter_context(_open(path))
                for key in file.keys():  # noqa: SIM118
                    if canonical(key) in self._where:
                        raise self._refuse(f"holds {canonical(key)!r} twice, again in {path.name}")
                    self._where[canonical(key)] = (file, key)
        except BaseException:
            self._open.close()
            raise

    def close(self) -> None:
        """Close the files."""
        self._open.close()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first matrix in the files."""
        kinds = (s.get_dtype() for s in map(self._slice, self._where) if len(s.get_shape()) > 1)
        return FILE_DTYPES.get(next(kinds, "F32"), torch.float32)

    def places(self, decoder: Decoder, config: Mapping[str, Any]) -> dict[str, Place]:
        """The place in `decoder` of every tensor. Raises `InvalidRequest` unless all fit."""
        places = checkpoint_map(decoder.spec, config, self._where)
        missing = [key for key in places if key not in self._where]
        if missing:
            untied = f"{FAMILIES[decoder.spec.family].names.head}.weight" in missing
            hint = "; a head that shares the embedding needs overrides={'tied_head': True}"
            raise self._refuse(f"lacks {_some(missing, 'tensor')}{hint if untied else ''}")
        unexpected = [
            key for key in self._where if key not in places and not self._ignorable(key, decoder)
        ]
        if unexpected:
            raise self._refuse(
                f"holds {_some(unexpected, 'tensor')} that family {decoder.spec.family!r} "
                "has no place for"
            )
        for key, place in places.items():
            self._check_tensor(key, _target(decoder, place))
        return places

    def fill(self, decoder: Decoder, places: Mapping[str, Place]) -> None:
        """Copy every tensor into its place, converting the dtype on the way."""
        for key, place in places.items():
            tensor = self._tensor(key)
            if place.unit_columns:
                tensor = F.normalize(tensor.float(), dim=0, eps=1e-7)
            with torch.no_grad():
                _target(decoder, place).copy_(tensor)

    def _ignorable(self, key: str, decoder: Decoder) -> bool:
        """Rotary tables, which are computed, and a copy of a tied head, which must be equal."""
        names = FAMILIES[decoder.spec.family].names
        if decoder.spec.tied_head and key == f"{names.head}.weight":
            if torch.equal(self._tensor(key), self._tensor(f"{names.embedding}.weight")):
                return True
            raise self._refuse(
                f"specifies a head that shares the embedding, but {key!r} differs from it; "
                "overrides={'tied_head': False} uses it"
            )
        return ROTARY_TABLE.search(key) is not None

    def _check_tensor(self, key: str, target: Tensor) -> None:
        """Shape and kind of a stored tensor against its place."""
        header = self._slice(key)
        found, expected = list(header.get_shape()), list(target.shape)
        if found != expected:
            raise self._refuse(
                f"holds {key!r} with shape {found}, but config.json asks for {expected}"
            )
        if header.get_dtype() not in FILE_DTYPES:
            raise self._refuse(
                f"holds {key!r} as {header.get_dtype()}; quantised weights are not supported, "
                f"only {', '.join(FILE_DTYPES)}"
            )

    def _slice(self, key: str) -> Any:
        file, name = self._where[key]
        return file.get_slice(name)

    def _tensor(self, key: str) -> Tensor:
        file, name = self._where[key]
        tensor: Tensor = file.get_tensor(name)
        return tensor

    def _refuse(self, what: str) -> InvalidRequest:
        return InvalidRequest("model", f"{self.folder} {what}")


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder, one or the shards of its index. Raises `InvalidRequest`."""
    if (folder / INDEX).is_file():
        names = _shards(folder / INDEX)
        absent = [name for name in names if not (folder / name).is_file()]
        if absent:
            raise InvalidRequest(
                "model", f"{folder} lacks {_some(absent, 'shard')} of {len(names)}"
            )
        return [folder / name for name in names]
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    pickles = sorted(
        path.name for suffix in ("bin", "pt", "pth") for path in folder.glob(f"*.{suffix}")
    )
    if pickles:
        raise InvalidRequest(
            "model",
            f"{folder} holds only pickled weights ({pickles[0]}), which can run code when read and "
            "are never loaded; convert them to safetensors",
        )
    raise InvalidRequest(
        "model", f"{folder} holds no weights: neither model.safetensors nor {INDEX}"
    )


def _open(path: Path) -> Any:
    """An open safetensors file; the header check covers the length of the data."""
    check_no_pointer(path)
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise InvalidRequest(
            "model", f"{path} is truncated or not a safetensors file: {error}"
        ) from error


def _shards(index: Path) -> list[str]:
    """The names of the files that a weight index lists. Raises `InvalidRequest`."""
    check_no_pointer(index)
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise InvalidRequest("model", f"{index} is not a weight index: {error!r}") from error
    odd = [name for name in names if not isinstance(name, str) or Path(name).name != name]
    if odd or not names:
        raise InvalidRequest(
            "model", f"{index} must name files of its folder, got {odd[0] if odd else 'none'!r}"
        )
    return names


def check_no_pointer(path: Path) -> None:
    """Raises `InvalidRequest` for a file that only points to its content."""
    try:
        with path.open("rb") as file:
            start = file.read(len(POINTER))
    except OSError as error:
        raise InvalidRequest("model", f"{path} cannot be read: {error}") from error
    if start == POINTER:
        raise InvalidRequest(
            "model",
            f"{path} is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`",
        )


def _target(decoder: Decoder, place: Place) -> Tensor:
    """The part of the decoder's parameters that `place` names."""
    parameter = decoder.get_parameter(place.parameter)
    return parameter[place.part] if place.part else parameter


def _some(names: Collection[str], noun: str) -> str:
    """`3 tensors ('a', 'b', 'c')`, shortened after three."""
    shown: Iterable[str] = [repr(name) for name in list(names)[:3]]
    more = ", ..." if len(names) > 3 else ""
    return f"{len(names)} {noun}{'s' if len(names) > 1 else ''} ({', '.join(shown)}{more})"
