"""`load`: from a folder, a hub id or a bundled name to an engine."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

from dlm.config import GenerationConfig
from dlm.config.explain import Explanation, explain
from dlm.core import ModelInfo
from dlm.engine.autoregressive import CausalEngine
from dlm.engine.auxiliaries import is_masked, load_auxiliary, named_ids
from dlm.engine.binding import bind_request
from dlm.engine.engine import Engine
from dlm.errors import InvalidRequest
from dlm.model.loading import checkpoint_folder, load_model, parameter_count, spec_of
from dlm.model.spec import ModelSpec
from dlm.text import Text, load_text

BUNDLED: Final = Path(__file__).parent.parent / "model" / "bundled"
"""Where the checkpoints that ship with the package live, one folder each."""


def bundled_names() -> tuple[str, ...]:
    """The names of the checkpoints that ship."""
    return tuple(sorted(p.name for p in BUNDLED.iterdir() if (p / "config.json").is_file()))


def trained_canvas(name: str) -> int | None:
    """The longest canvas that the bundled model `name` was trained to leave partly empty.

    On longer ones its short answers come out shortened or empty. None for models whose answer
    does not depend on the length of the canvas, and for those that do not ship.
    """
    path = BUNDLED / name / "training.json"
    if name not in bundled_names() or not path.is_file():
        return None
    facts = json.loads(path.read_text(encoding="utf-8"))
    return cast("int | None", facts.get("canvas"))


def load(
    source: str | Path = "tiny",
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    max_rows: int = 32,
    max_waiting: int | None = None,
    max_token_forwards: int | None = None,
    kv_bytes: int | None = None,
    unroll: int = 1,
    prefix_bytes: int = 0,
    aux: Mapping[str, str | Path] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Engine:
    """An engine for `source`: a bundled name, a checkpoint folder, or a hub id.

    `device` and `dtype` "auto": the first CUDA device in the files' dtype, else the CPU in float32.
    `max_rows`, `max_waiting`, `max_token_forwards`, `kv_bytes`, `unroll` and `prefix_bytes` are
    those of `Engine`.
    `aux` names auxiliary models and their sources (`{"ar": "Qwen/Qwen2.5-0.5B-Instruct"}`): causal
    ones, which read drafts, and masked diffusion models, which guides read. Their vocabularies must
    contain this one's piece by piece. `overrides` corrects what a checkpoint's files get wrong
    (`mask_id`, `eos_ids`, `shift`, `attention`, `block_length`).
    Raises `InvalidRequest` when a source cannot be loaded or cannot be decoded.
    """
    folder = _folder(source, revision)
    model = load_model(folder, device=device, dtype=dtype, overrides=overrides)
    text = load_text(folder, named_ids(model.spec))
    info = info_of(model.spec, text)
    _warn_of_mask(model.spec, text, overrides)
    helpers = {
        name: load_auxiliary(name, _folder(path, None), model, text, dtype=dtype, kv_bytes=kv_bytes)
        for name, path in (aux or {}).items()
    }
    return Engine(
        model,
        info,
        text,
        max_rows=max_rows,
        max_waiting=max_waiting,
        max_token_forwards=max_token_forwards,
        kv_bytes=kv_bytes,
        unroll=unroll,
        prefix_bytes=prefix_bytes,
        aux=helpers,
        name=str(source),
    )


def load_causal(
    source: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> CausalEngine:
    """A causal model as it is usually decoded. Arguments as in `load`.

    Raises `InvalidRequest` when the source cannot be loaded or is no causal model.
    """
    folder = _folder(source, revision)
    spec = spec_of(folder, overrides)
    text = load_text(folder, named_ids(spec))
    if spec.attention != "causal":
        raise InvalidRequest(
            "model", f"must be a causal model, {spec.family!r} has {spec.attention} attention"
        )
    model = load_model(folder, device=device, dtype=dtype, overrides=overrides)
    return CausalEngine(model, _end_ids(spec, text), text, name=str(source))


def mask_conflict(spec: ModelSpec, text: Text | None) -> str:
    """The mask ids of a model's files and of its tokenizer, in words; empty if they do not differ.

    A tokenizer need not know the mask, and may spell several tokens so.
    """
    known = {} if text is None else text.mask_tokens()
    if text is None or spec.mask_id is None or not known or spec.mask_id in known.values():
        return ""
    piece = dict(enumerate(text.vocabulary.pieces())).get(spec.mask_id)
    theirs = " or ".join(f"{index} ({name!r})" for name, index in known.items())
    remedy = f"overrides={{'mask_id': {min(known.values())}}} (--mask-id {min(known.values())})"
    return (
        f"the mask id is {spec.mask_id} ({piece!r}) by config.json, and {theirs} by the tokenizer: "
        f"if answers are wrong or empty, try {remedy}"
    )


def _warn_of_mask(spec: ModelSpec, text: Text | None, overrides: Mapping[str, Any] | None) -> None:
    """Warn of two mask ids, unless the caller has chosen one."""
    if "mask_id" not in (overrides or {}) and (words := mask_conflict(spec, text)):
        warnings.warn(words, stacklevel=1)


def _end_ids(spec: ModelSpec, text: Text | None) -> tuple[int, ...]:
    """The end ids of a checkpoint's files and of its tokenizer, of which the model has embeddings.

    A tokenizer may hold more tokens than the model knows; no answer ends with those.
    """
    told = (*spec.eos_ids, *(text.end_ids() if text is not None else ()))
    return tuple(dict.fromkeys(i for i in told if i < spec.vocab_size))


@dataclass(frozen=True, slots=True)
class Inspection:
    """A checkpoint without its weights: sizes and traits, and what decoding would know of it."""

    spec: ModelSpec
    info: ModelInfo
    text: Text | None
    parameters: int
    folder: Path

    @property
    def mask_conflict(self) -> str:
        """The mask ids of model and tokenizer, in words; empty if they do not differ."""
        return mask_conflict(self.spec, self.text)

    def explain(self, **options: Any) -> Explanation:
        """Describe a generation with these options, as `Engine.explain` does."""
        require_diffusion(self.spec)
        config = GenerationConfig.from_options(options)
        return explain(bind_request(config, self.text, self.info), self.info)


def inspect(
    source: str | Path = "tiny",
    *,
    revision: str | None = None,
    aux: Mapping[str, str | Path] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Inspection:
    """Look at a checkpoint without reading its weights. Arguments and errors as in `load`.

    Causal models can be looked at too. Of the auxiliary models `aux` the names and kinds alone are
    looked at.
    """
    folder = _folder(source, revision, weights=False)
    spec = spec_of(folder, overrides)
    text = load_text(folder, named_ids(spec))
    masked = (n for n, path in (aux or {}).items() if is_masked(_folder(path, None, weights=False)))
    info = replace(_traits(spec, text), aux=tuple(aux or ()), references=tuple(masked))
    _warn_of_mask(spec, text, overrides)
    return Inspection(spec, info, text, parameter_count(spec), folder)


def _folder(source: str | Path, revision: str | None, *, weights: bool = True) -> Path:
    if isinstance(source, str) and source in bundled_names() and not Path(source).exists():
        return BUNDLED / source
    try:
        return checkpoint_folder(source, revision, weights=weights)
    except InvalidRequest as error:
        bundled = ", ".join(repr(name) for name in bundled_names())
        raise InvalidRequest(
            error.param, f"{error.message} (bundled models: {bundled})"
        ) from error.__cause__


def require_diffusion(spec: ModelSpec) -> None:
    """Raises `InvalidRequest` for a causal model."""
    if spec.attention == "causal":
        raise InvalidRequest(
            "model",
            f"{spec.family!r} is an autoregressive model; it can assist a diffusion model (`aux=`) "
            "but not be decoded as one: use `dlm.load_causal`",
        )


def info_of(spec: ModelSpec, text: Text | None) -> ModelInfo:
    """The `ModelInfo` of a checkpoint. Raises `InvalidRequest` when it cannot be decoded."""
    require_diffusion(spec)
    return _traits(spec, text)


def _traits(spec: ModelSpec, text: Text | None) -> ModelInfo:
    """The same of any checkpoint, a causal one too. Raises `InvalidRequest` for a lost mask id."""
    if spec.mask_id is None and spec.attention != "causal":
        raise InvalidRequest(
            "model", "its files name no mask token: give `overrides={'mask_id': ...}`"
        )
    eos_ids, delimiters = _end_ids(spec, text), () if text is None else text.delimiter_ids()
    symbols = () if text is None else text.symbol_ids()
    return ModelInfo(
        family=spec.family,
        vocab_size=spec.vocab_size,
        mask_id=spec.mask_id,
        eos_ids=eos_ids,
        pad_id=spec.pad_id if spec.pad_id is not None else (eos_ids or (0,))[0],
        max_length=spec.max_length,
        attention=spec.attention,
        block_length=spec.block_length,
        shift=spec.shift or spec.attention == "causal",
        delimiters=tuple(i for i in delimiters if i < spec.vocab_size),
        symbols=tuple(i for i in symbols if i < spec.vocab_size),
    )
