"""Header of a run, from which a reader can repeat it: versions, model, items, settings, machine.

A run goes on only where all that decides its answers is the same (`identity_of`). What may differ:
the threads, the load, the number of the CUDA device, the name under which the model was found, and
how and where answers are graded; of a server nothing but address and name is known.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch

import dlm
from dlm.errors import InvalidRequest
from dlm.evals.endpoint import Endpoint
from dlm.evals.identity import code_identity, differences, in_words, rules_identity, version_of
from dlm.evals.items import Item, digest
from dlm.evals.sampling import asked
from dlm.evals.settings import Setting

HEADER: Final = "run.json"
FORMAT: Final = 2
"""Of the header; the first one did not hold what decides a run's answers."""
PACKAGES: Final = ("torch", "transformers", "sentencepiece", "numpy", "scipy")
SHAPE: Final = (
    ("settings", dict),
    ("items", dict),
    ("samples", int),
    ("rows", int),
    ("split", str),
    ("rungs", list),
    ("model", dict),
    ("machine", dict),
)
"""What a header must have for a report."""


def run_header(
    engine: dlm.Engine | Endpoint,
    sets: Mapping[str, Sequence[Item]],
    settings: Iterable[Setting],
    causal: dlm.CausalEngine | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Plain data for JSON. `sets`: task -> items; `more`: the run's other options."""
    here = session()
    return {
        **planned(sets, settings, **more),
        **here,
        "model": _model(engine, sets),
        "causal": None if causal is None else _model(causal, sets),
        "aux": {} if isinstance(engine, Endpoint) else _aux(engine),
        "sessions": [here],
    }


def planned(
    sets: Mapping[str, Sequence[Item]], settings: Iterable[Setting], **more: Any
) -> dict[str, Any]:
    """Build the part of a header that is known before the model is loaded."""
    settings = list(settings)
    header = {
        "format": FORMAT,
        "items": {task: {"n": len(items), "sha256": digest(items)} for task, items in sets.items()},
        "settings": {
            setting.name: {
                "options": dict(setting.options),
                "causal": setting.causal,
                "sweep": setting.sweep,
            }
            for setting in settings
        },
        "rules": rules_identity(settings),
        "code": code_identity(),
        **more,
    }
    written: dict[str, Any] = json.loads(json.dumps(header, default=repr))  # parts by their repr
    return written


def session() -> dict[str, Any]:
    """When and on what answers are drawn; a run that goes on has several."""
    return {
        "dlm": dlm.__version__,
        "commit": commit(),
        "packages": {name: version_of(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": machine(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def identity_of(header: Mapping[str, Any]) -> dict[str, Any]:
    """Select the entries of a (possibly partial) header that must not change when a run resumes."""
    names = ("model", "causal", "aux", "items", "settings", "rules")
    identity = {n: header[n] for n in (*names, "samples", "rows", "protocol") if n in header}
    for name in ("model", "causal"):
        model = identity.get(name)
        if isinstance(model, dict) and "endpoint" not in model:
            kind = str(model.get("device")).partition(":")[0]
            identity[name] = {k: v for k, v in model.items() if k != "name"} | {"device": kind}
    if isinstance(identity.get("protocol"), dict):  # its questions are in its items
        words = ("note", "source", "sandbox")  # what another sandbox has judged is judged again
        identity["protocol"] = {k: v for k, v in identity["protocol"].items() if k not in words}
    served = "endpoint" in (header.get("model") or {}) and not header.get("causal")
    if "code" in header and not served:  # a server's is not known
        identity["code"] = header["code"]
    return identity


def must_be_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `InvalidRequest` if the run in a folder is another one than what `now` is known of,
    with what differs.
    """
    again = "choose another --out, or delete it to begin anew"
    if before.get("format", 1) != FORMAT:
        old = "a run of an older dlm, which did not keep what decides its answers"
        raise InvalidRequest("out", f"{folder} holds {old}: {again}")
    ours = identity_of(now)
    known = {name: value for name, value in identity_of(before).items() if name in ours}
    if found := differences(known, ours):
        names = ", ".join(dict.fromkeys(name for name, _ in found))
        raise InvalidRequest(
            "out", f"{folder} holds a run with other {names} ({in_words(found)}): {again}"
        )


def read_header(folder: Path) -> dict[str, Any]:
    """The header of the run in `folder`.

    Raises `InvalidRequest` if there is none, and for one that is damaged or of a newer dlm.
    """
    path = folder / HEADER
    if not path.is_file():
        raise InvalidRequest("run", f"{folder} holds no run: it has no {HEADER}")
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("run", f"{path} is damaged: {error}") from error
    if not isinstance(header, dict):
        raise InvalidRequest("run", f"{path} is damaged: it holds no JSON object")
    number = header.get("format", 1)
    if number not in range(1, FORMAT + 1):
        wrong_format = f"{path} is of format {number!r}, which dlm {dlm.__version__} does not know"
        raise InvalidRequest("run", wrong_format)
    for name, kind in SHAPE:
        if not isinstance(header.get(name), kind) or isinstance(header.get(name), bool):
            wrong = f"{path} is damaged: `{name}` must be of type {kind.__name__}"
            raise InvalidRequest("run", f"{wrong}, got {header.get(name)!r:.60}")
    for name, whole in (
        ("protocol", isinstance(header.get("protocol", {}), dict)),
        ("packages", isinstance(header.get("packages", {}), dict)),
        ("sessions", _are_sessions(header.get("sessions", []))),
    ):
        if not whole:
            raise InvalidRequest("run", f"{path} is damaged: `{name}` is {header[name]!r:.60}")
    return header


def _are_sessions(sessions: Any) -> bool:
    """True if a value is a valid list of sessions, each with the machine that it ran on."""
    return isinstance(sessions, list) and all(
        isinstance(one, dict) and isinstance(one.get("machine"), dict) for one in sessions
    )


def _model(
    engine: dlm.Engine | dlm.CausalEngine | Endpoint, sets: Mapping[str, Sequence[Item]]
) -> dict[str, Any]:
    """Name, shape and weights; what its tokenizer makes of prompts and of ids."""
    if isinstance(engine, Endpoint):
        return engine.about()
    weight, spec = engine.model.embedding.weight, engine.model.spec
    return {
        "name": engine.name,
        "family": spec.family,
        "attention": spec.attention,
        "dtype": str(weight.dtype),
        "device": str(weight.device),
        "accelerator": torch.cuda.get_device_name(weight.device) if weight.is_cuda else None,
        "parameters": sum(p.numel() for p in engine.model.parameters()),
        "sha256": weights_digest(engine.model),
        "spec": json.loads(json.dumps(asdict(spec), default=repr)),
        "prompts": {task: prompts_digest(engine, items) for task, items in sets.items()},
        "vocabulary": vocabulary_digest(engine),
    }


def _aux(engine: dlm.Engine) -> dict[str, Any]:
    """The weights of the auxiliary models by their names."""
    return {name: weights_digest(aux.model) for name, aux in engine.manager.aux.items()}


def prompts_digest(engine: dlm.Engine | dlm.CausalEngine, items: Sequence[Item]) -> str:
    """The sha256 of the model's input for each item: ids, if there is a tokenizer."""
    sha = hashlib.sha256()
    for item in items:
        prompt = asked(engine, item)
        if engine.text is not None and _is_text(prompt):
            prompt = engine.text.encode_prompt(prompt)
        sha.update(json.dumps(prompt, default=repr).encode() + b"\n")
    return sha.hexdigest()


def _is_text(prompt: Any) -> bool:
    """True if a prompt is a text or a list of messages, not ids."""
    return isinstance(prompt, str) or any(isinstance(part, Mapping) for part in prompt)


def vocabulary_digest(engine: dlm.Engine | dlm.CausalEngine) -> str | None:
    """The sha256 of the text of each id, of which answers are put together."""
    if engine.text is None:
        return None
    sha = hashlib.sha256()
    for token in range(engine.model.spec.vocab_size):
        sha.update(engine.text.decode([token]).encode("utf-8", "surrogatepass") + b"\0")
    return sha.hexdigest()


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


def weights_digest(model: Any) -> str:
    """The sha256 of the weights as they are in memory."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


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
