"""What a reader must know of a run to repeat it: versions, model, items, settings, machine."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import dlm
from dlm.evals.endpoint import Endpoint
from dlm.evals.items import Item, digest
from dlm.evals.settings import Setting

PACKAGES = ("torch", "transformers", "sentencepiece", "numpy", "scipy")


def run_header(
    engine: dlm.Engine | Endpoint,
    sets: Mapping[str, Sequence[Item]],
    settings: Iterable[Setting],
    causal: dlm.CausalEngine | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Plain data for JSON. `sets`: task -> items; `more`: what else the run was told."""
    return {
        "dlm": dlm.__version__,
        "commit": commit(),
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": machine(),
        "model": _model(engine),
        "causal": None if causal is None else _model(causal),
        "items": {task: {"n": len(items), "sha256": digest(items)} for task, items in sets.items()},
        "settings": {
            setting.name: {
                "options": dict(setting.options),
                "causal": setting.causal,
                "sweep": setting.sweep,
            }
            for setting in settings
        },
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        **more,
    }


def _model(engine: dlm.Engine | dlm.CausalEngine | Endpoint) -> dict[str, Any]:
    """Name, shape and weights."""
    if isinstance(engine, Endpoint):
        return engine.about()
    weight, spec = engine.model.embedding.weight, engine.model.spec
    return {
        "name": engine.name,
        "family": spec.family,
        "attention": spec.attention,
        "dtype": str(weight.dtype),
        "device": str(weight.device),
        "parameters": sum(p.numel() for p in engine.model.parameters()),
        "sha256": weights_digest(engine),
    }


def machine() -> dict[str, Any]:
    """Processor, threads and load."""
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": accelerator,
        "load": round(os.getloadavg()[0], 2),
    }


def weights_digest(engine: dlm.Engine | dlm.CausalEngine) -> str:
    """The sha256 of the weights as they are in memory."""
    found = hashlib.sha256()
    for name, tensor in sorted(engine.model.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def commit() -> str | None:
    """The commit of the sources, with `+` where they differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        tracked = git("ls-files", "--error-unmatch", Path(__file__).name)
        changed = git("status", "--porcelain", "--untracked-files=no", str(here.parent))
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "") if tracked else None
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
