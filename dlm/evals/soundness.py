"""Check that the weight files of a checkpoint look like weights: finite, of a sane size, whole.

Read from the files, so that each fault is reported by the name of the tensor there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from safetensors import safe_open
from torch import Tensor

from dlm.errors import InvalidRequest

LARGEST: Final = 1e4
"""No weight of a trained network is larger."""
RUN: Final = 32
"""Equal neighbours in a row that do not happen in a trained matrix."""
RECORD: Final = "verify.json"
"""What a checkpoint's makers have written down: digests of its files, scores of a text."""
SHA256: Final = re.compile(r"[0-9a-f]{64}")
SOME: Final = 3
"""Faults that one line lists."""


def weight_faults(folder: Path, vocabulary: int) -> list[str]:
    """Describe the faults of the tensors in a folder's weight files, one sentence a kind.

    `vocabulary`: rows of the embeddings, some of which may rightly be empty.
    """
    found: dict[str, list[str]] = {}
    for name, tensor in _tensors(folder):
        total = f"of {tensor.numel():,}"
        if lost := int((~tensor.isfinite()).sum()):
            found.setdefault("not finite", []).append(f"{name} ({lost:,} {total})")
        elif huge := int((tensor.abs() > LARGEST).sum()):
            found.setdefault(f"beyond {LARGEST:g}", []).append(f"{name} ({huge:,} {total})")
        elif (runs := _runs(tensor, vocabulary)) > 1:
            found.setdefault("equal in long runs, as where a file was overwritten", []).append(
                f"{name} ({runs * RUN:,} {total})"
            )
    return [f"values are {kind} in {_listed(names)}" for kind, names in found.items()]


def digest_faults(folder: Path) -> list[str]:
    """Weight files whose digests differ from the checkpoint's record, or from the hub's cache."""
    known = {path.name: path.resolve().name for path in sorted(folder.glob("*.safetensors"))}
    published = {name: blob for name, blob in known.items() if SHA256.fullmatch(blob)}
    published |= read_record(folder).get("sha256", {})
    wrong = [name for name, digest in published.items() if file_digest(folder / name) != digest]
    return [f"{name} is not the published file: its sha256 differs" for name in wrong]


def read_record(folder: Path) -> dict[str, Any]:
    """Read the record by a checkpoint's makers; empty if there is no such file.

    Raises `InvalidRequest` for a file that holds something else.
    """
    path = folder / RECORD
    if not path.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        digests, scores = found.get("sha256", {}), found.get("scores", [])
        is_right = isinstance(digests, dict) and all(isinstance(s, int | float) for s in scores)
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidRequest("model", f"{path} cannot be read: {error}") from error
    if not is_right:
        raise InvalidRequest("model", f"{path} must map 'sha256' to digests, 'scores' to numbers")
    return found


def write_record(folder: Path, scores: list[float]) -> None:
    """Write down the digest of a bundled checkpoint's weights and its scores of the text."""
    record = {
        "sha256": {"model.safetensors": file_digest(folder / "model.safetensors")},
        "scores": [round(score, 3) for score in scores],
    }
    (folder / RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")


def file_digest(path: Path) -> str:
    """The sha256 of a file; empty for one that is not there."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every floating-point tensor of the weight files, by name."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt", device="cpu") as file:
            for name in file.keys():  # noqa: SIM118  (the file is no mapping)
                tensor = file.get_tensor(name)
                if tensor.is_floating_point() and tensor.numel():
                    yield name, tensor


def _runs(tensor: Tensor, vocabulary: int) -> int:
    """Number of stretches of `RUN` equal neighbours in a matrix."""
    if tensor.ndim < 2 or vocabulary in tensor.shape:
        return 0
    stretches = tensor.flatten()[: tensor.numel() // RUN * RUN].view(-1, RUN)
    return int((stretches == stretches[:, :1]).all(dim=1).sum())


def _listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SOME} more" if len(names) > SOME else ""
    return ", ".join(names[:SOME]) + more
