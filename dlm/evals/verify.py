"""Does a checkpoint work here? Its files, its tokenizer, its logits, and three decodes.

What a published model should be checked for on the machine that will serve it: that its special
ids are those of its tokenizer, that the forward is that of transformers' own class where there is
one, that the paged forward is the plain one, and that decoding ends, twice the same, with the
exact cache as without.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

import torch
from torch import Tensor

import dlm

BODIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Dream": "Qwen2",
        "sdar": "Qwen3",
        "sdar_moe": "Qwen3Moe",
        "rnd1": "Qwen3Moe",
        "a2d-llama": "Llama",
        "a2d-qwen2": "Qwen2",
        "a2d-qwen3": "Qwen3",
    }
)
"""Families whose body, tensor names included, transformers has under another name."""
PROMPTS: Final = ("Hello!", "What is 12 + 30?", "Write a function that reverses a list.")
TOKENS: Final = 32
TOLERANCE: Final = 1e-3
"""Largest difference of two float32 logits, as a share of their range."""


class Check(NamedTuple):
    """One thing that was looked at, how it is, and what was found."""

    name: str
    status: Literal["ok", "wrong", "skipped"]
    detail: str


def verify(
    source: str | Path,
    *,
    device: str = "auto",
    dtype: str = "float32",
    overrides: Mapping[str, Any] | None = None,
) -> Iterator[Check]:
    """Look at a checkpoint step by step. Raises `InvalidRequest` when it cannot be loaded at all.

    In float32, unless `dtype` says otherwise: the tolerances are meant for it.
    """
    found = dlm.inspect(source, overrides=overrides)
    yield Check("files", "ok", _described(found))
    yield from _tokenizer(found)
    engine = dlm.load(source, device=device, dtype=dtype, overrides=overrides)
    yield Check("weights", "ok", f"{found.parameters:,} parameters, every tensor in its place")
    yield _against_transformers(engine, found.folder)
    yield _paged(engine)
    yield from _decodes(engine)


def _described(found: dlm.Inspection) -> str:
    spec, info = found.spec, found.info
    blocks = f", blocks of {info.block_length}" if info.block_length else ""
    shift = ", shifted" if info.shift else ""
    return (
        f"{info.family}: {spec.layers} layers, width {spec.hidden_size}, {spec.heads} heads over "
        f"{spec.kv_heads}, vocabulary {spec.vocab_size}, {info.attention} attention{blocks}{shift}"
    )


def _tokenizer(found: dlm.Inspection) -> Iterator[Check]:
    """The special ids of the config are control tokens of the tokenizer, and nothing is lost."""
    if found.text is None:
        yield Check("tokenizer", "skipped", "there is none: prompts must be ids")
        return
    info, text = found.info, found.text
    names = {index: name for name, index in text.vocabulary.control.items()}
    special = {"mask": (info.mask_id,), "end": info.eos_ids}
    for name, ids in special.items():
        told = ", ".join(f"{i} = {names.get(i, '?')!r}" for i in ids if i is not None)
        known = all(i in names for i in ids if i is not None)
        yield Check(f"{name} id", "ok" if known else "wrong", told or "none")
    size = len(text.vocabulary.pieces())
    fits = size <= info.vocab_size
    detail = f"{size} pieces, {info.vocab_size} embeddings"
    yield Check("vocabulary", "ok" if fits else "wrong", detail)
    kept = all(text.decode(text.encode(prompt)) == prompt for prompt in PROMPTS)
    template = "a chat template" if text.vocabulary.template else "no chat template"
    yield Check("tokenizer", "ok" if kept else "wrong", f"texts survive it; {template}")


def _ids(engine: dlm.Engine, length: int = 24) -> Tensor:
    """Two sequences of common ids with masks in them, `[2, length]`."""
    generator = torch.Generator().manual_seed(0)
    top = min(engine.info.vocab_size, 1000)
    ids = torch.randint(0, top, (2, length), generator=generator)
    if engine.info.mask_id is not None:
        ids[:, length // 2 :: 2] = engine.info.mask_id
    return ids


def _close(ours: Tensor, theirs: Tensor) -> tuple[bool, str]:
    """Whether logits agree, and by how much they differ."""
    theirs = theirs.float().cpu()
    spread = float(theirs.max() - theirs.min())
    worst = float((ours.float().cpu() - theirs).abs().max())
    return worst <= TOLERANCE * spread, f"largest difference {worst:.1e} on a range of {spread:.0f}"


def _against_transformers(engine: dlm.Engine, folder: Path) -> Check:
    """Our logits beside those of transformers' class for the body, no remote code run."""
    name, family = "transformers", engine.info.family
    if family not in BODIES:
        return Check(name, "skipped", f"has no class of its own for {family!r}")
    try:
        theirs = _reference(engine, folder)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return Check(name, "skipped", f"its {BODIES[family]} does not load: {reason[:160]}")
    ids = _ids(engine)
    ours = engine.logits(ids)
    with torch.inference_mode():
        raw = theirs(ids.to(ours.device))
    if engine.info.shift:
        raw = torch.cat((raw[:, :1], raw[:, :-1]), dim=1)
    agree, detail = _close(ours, raw)
    return Check(name, "ok" if agree else "wrong", f"{BODIES[family]}: {detail}")


def _reference(engine: dlm.Engine, folder: Path) -> Callable[[Tensor], Tensor]:
    """transformers' model of the body, with the attention that this one was trained with."""
    import transformers

    body, weight, info = BODIES[engine.info.family], engine.model.embedding.weight, engine.info
    told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    fields = {key: told[key] for key in told if key not in ("model_type", "auto_map")}
    config = getattr(transformers, f"{body}Config").from_dict(fields)
    model: Any = getattr(transformers, f"{body}ForCausalLM").from_pretrained(
        folder, config=config, dtype=weight.dtype
    )
    model.to(weight.device).eval()

    def run(ids: Tensor) -> Tensor:
        at = torch.arange(ids.shape[1], device=ids.device)
        block = torch.div(at, info.alignment, rounding_mode="floor")
        seen = block[:, None] >= block[None, :]
        if info.attention == "full":
            seen = torch.ones_like(seen)
        mask = seen[None, None].expand(len(ids), 1, -1, -1)
        found: Tensor = model(ids, attention_mask=mask, use_cache=False).logits
        return found

    return run


def _paged(engine: dlm.Engine) -> Check:
    """The first decision of a decode is the plain forward's: same ids, same confidences."""
    prompt = _ids(engine, 12)[0, :6].tolist()
    length, info = 8, engine.info
    answer = engine.generate(
        prompt, max_new_tokens=length, unmask="everything", stop="none", trace=True, cache="none"
    )
    first = next(event for event in answer.trace if event.type == "commit")
    total = len(answer.canvas)
    canvas = [*prompt, *[info.mask_id] * (total - len(prompt))]
    logp = torch.log_softmax(engine.logits([canvas])[0].float().cpu(), dim=-1)
    told = torch.tensor(first.conf)
    plain = logp[list(first.pos), list(first.ids)].exp()
    worst = float((told - plain).abs().max())
    agree = worst <= TOLERANCE
    return Check("paged forward", "ok" if agree else "wrong", f"confidences differ by {worst:.1e}")


def _decodes(engine: dlm.Engine) -> Iterator[Check]:
    """Three prompts: they end, twice the same, with the exact cache as without one."""
    prompts: Sequence[Any] = PROMPTS
    if engine.text is None:
        prompts = [_ids(engine, 8)[0, :4].tolist()] * 3
    for prompt in prompts:
        first, again = (engine.generate(prompt, max_new_tokens=TOKENS) for _ in range(2))
        plain = engine.generate(prompt, max_new_tokens=TOKENS, cache="none")
        stats = first.stats
        shown = repr(first.text if first.text is not None else list(first.ids))
        detail = f"{stats.nfe} forwards, {stats.tokens_per_second:.0f} tokens/s: {shown[:100]}"
        if first.canvas != again.canvas:
            yield Check("decode", "wrong", f"not the same twice: {detail}")
        elif first.canvas != plain.canvas:
            yield Check("decode", "wrong", f"not the same without a cache: {detail}")
        else:
            yield Check("decode", "ok", detail)
