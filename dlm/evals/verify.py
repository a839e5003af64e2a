"""Checks of a checkpoint on this machine: files, tokenizer, logits, knowledge, three decodes.

A published model should be checked on the machine that will serve it: that its special
ids are those of its tokenizer, that its weights are whole, that the forward is that of
transformers' own class where there is one, that the paged forward is the plain one, that it finds
words taken out of a text (better than with its weights shuffled, and than with another shift,
attention pattern or rotary base), and that decoding ends, twice the same, with the exact cache as
without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

import torch
from torch import Tensor

import dlm
from dlm.errors import CheckpointError
from dlm.evals.reconstruction import (
    is_better,
    other_readings,
    read_otherwise,
    rows_of,
    score,
    shuffle_weights,
)
from dlm.evals.reference import BODIES, reference
from dlm.evals.soundness import digest_faults, read_record, weight_faults

PROMPTS: Final = ("Hello!", "What is 12 + 30?", "Write a function that reverses a list.")
TOKENS: Final = 32
TOLERANCES: Final[Mapping[torch.dtype, float]] = MappingProxyType(
    {torch.float64: 1e-3, torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 8e-2}
)
"""Largest difference of two logits, as a share of their range, and of two confidences."""
DRIFTS: Final[Mapping[torch.dtype, float]] = MappingProxyType(
    {torch.float64: 3e-3, torch.float32: 3e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
)
"""Mean difference of a text's log probabilities from those that its makers have recorded."""


class Check(NamedTuple):
    """A check: its name, its result, and the finding in words."""

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

    Tolerances are those of `dtype`. Weights that are not finite end the checks.
    """
    checkpoint = dlm.inspect(source, overrides=overrides)
    yield Check("files", "ok", _described(checkpoint))
    yield from _tokenizer(checkpoint, overrides or {})
    load: Any = dlm.load_causal if checkpoint.info.attention == "causal" else dlm.load
    engine = load(source, device=device, dtype=dtype, overrides=overrides)
    yield _weights(checkpoint)
    try:
        engine.logits(_ids(engine, 2))
        yield _against_transformers(engine, checkpoint.folder, overrides or {})
        yield _paged(engine)
        yield from _reads_text(engine, checkpoint.folder)
        yield from _decodes(engine)
        yield from _knows_text(engine, checkpoint.folder)
    except CheckpointError as error:
        yield Check("logits", "wrong", str(error))


def _described(checkpoint: dlm.Inspection) -> str:
    spec, info = checkpoint.spec, checkpoint.info
    blocks = f", blocks of {info.block_length}" if info.block_length else ""
    shift = ", shifted" if spec.shift else ""
    return (
        f"{info.family}: {spec.layers} layers, width {spec.hidden_size}, {spec.heads} heads over "
        f"{spec.kv_heads}, vocabulary {spec.vocab_size}, {info.attention} attention{blocks}{shift}"
    )


def _tokenizer(checkpoint: dlm.Inspection, overrides: Mapping[str, Any]) -> Iterator[Check]:
    """The special ids of the config are control tokens of the tokenizer, and nothing is lost."""
    if checkpoint.text is None:
        lacking = f"there is none in {checkpoint.folder}: prompts must be ids"
        yield Check("tokenizer", "skipped", lacking)
        return
    info, text = checkpoint.info, checkpoint.text
    names = {index: name for name, index in text.vocabulary.control.items()}
    special = {"mask": (info.mask_id,), "end": info.eos_ids}
    for name, ids in special.items():
        named = ", ".join(f"{i} = {names.get(i, '?')!r}" for i in ids if i is not None)
        known = all(i in names for i in ids if i is not None)
        if name == "mask" and checkpoint.mask_conflict and "mask_id" not in overrides:
            known, named = False, checkpoint.mask_conflict
        yield Check(f"{name} id", "ok" if known else "wrong", named or "none")
    size = len(text.vocabulary.pieces())
    fits = size <= info.vocab_size
    detail = f"{size} pieces, {info.vocab_size} embeddings"
    yield Check("vocabulary", "ok" if fits else "wrong", detail)
    kept = all(text.decode(text.encode(prompt)) == prompt for prompt in PROMPTS)
    template = "a chat template" if text.vocabulary.template else "no chat template"
    yield Check("tokenizer", "ok" if kept else "wrong", f"texts survive it; {template}")


def _weights(checkpoint: dlm.Inspection) -> Check:
    """Every tensor is in its place, is finite, and is that of the published file."""
    folder = checkpoint.folder
    faults = [*digest_faults(folder), *weight_faults(folder, checkpoint.spec.vocab_size)]
    whole = f"{checkpoint.parameters:,} parameters, every tensor in its place"
    return Check("weights", "wrong" if faults else "ok", "; ".join(faults) or whole)


def _ids(engine: Any, length: int = 24) -> Tensor:
    """Two sequences of common ids with masks in them, `[2, length]`."""
    spec, generator = engine.model.spec, torch.Generator().manual_seed(0)
    ids = torch.randint(0, min(spec.vocab_size, 1000), (2, length), generator=generator)
    if spec.mask_id is not None:
        ids[:, length // 2 :: 2] = spec.mask_id
    return ids


def _dtype(engine: Any) -> torch.dtype:
    found: torch.dtype = engine.model.embedding.weight.dtype
    return found


def _close(ours: Tensor, theirs: Tensor, tolerance: float) -> tuple[bool, str]:
    """Compare logits: True if they agree, and a text with the largest difference."""
    theirs = theirs.float().cpu()
    spread = float(theirs.max() - theirs.min())
    worst = float((ours.float().cpu() - theirs).abs().max())
    return worst <= tolerance * spread, f"largest difference {worst:.1e} on a range of {spread:.0f}"


def _against_transformers(engine: Any, folder: Path, overrides: Mapping[str, Any]) -> Check:
    """Our logits beside those of transformers' class for the body, no remote code run."""
    name, spec = "transformers", engine.model.spec
    if spec.family not in BODIES:
        return Check(name, "skipped", f"has no class of its own for {spec.family!r}")
    try:
        theirs = reference(engine, folder, overrides)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return Check(name, "skipped", f"its {BODIES[spec.family]} does not load: {reason[:160]}")
    ids = _ids(engine)
    ours = engine.logits(ids)
    with torch.inference_mode():
        raw = theirs(ids.to(ours.device))
    if spec.shift or spec.attention == "causal":
        raw = torch.cat((raw[:, :1], raw[:, :-1]), dim=1)
    agree, detail = _close(ours, raw, TOLERANCES[_dtype(engine)])
    return Check(name, "ok" if agree else "wrong", f"{BODIES[spec.family]}: {detail}")


def _paged(engine: Any) -> Check:
    """The first decision of a decode is the plain forward's: same ids, same confidences."""
    prompt, spec = _ids(engine, 12)[0, :6].tolist(), engine.model.spec
    if spec.attention == "causal":
        answer = engine.generate(prompt, max_new_tokens=1)
        last = torch.log_softmax(engine.logits([[*prompt, 0]])[0, -1].float().cpu(), dim=-1)
        decoded, plain = torch.tensor(answer.logprobs).exp(), last.max()[None].exp()
        decoded = decoded if len(decoded) else plain  # an end id at once leaves nothing to compare
    else:
        answer = engine.generate(
            prompt, max_new_tokens=8, unmask="everything", stop="none", trace=True, cache="none"
        )
        first = next(event for event in answer.trace if event.type == "commit")
        canvas = [*prompt, *[spec.mask_id] * (len(answer.canvas) - len(prompt))]
        logp = torch.log_softmax(engine.logits([canvas])[0].float().cpu(), dim=-1)
        decoded, plain = torch.tensor(first.conf), logp[list(first.pos), list(first.ids)].exp()
    worst = float((decoded - plain).abs().max())
    agree = worst <= TOLERANCES[_dtype(engine)]
    return Check("paged forward", "ok" if agree else "wrong", f"confidences differ by {worst:.1e}")


def _reads_text(engine: Any, folder: Path) -> Iterator[Check]:
    """The traits are those that fit the weights: no other reading fills a text clearly better.

    Where the makers have recorded the scores of a text, they are the same here.
    """
    if engine.text is None:
        yield Check("reading", "skipped", "without a tokenizer there is no text to fill")
        return
    record = read_record(folder)
    if "scores" in record:
        here, recorded = score(engine, rows_of(engine, tasks=False)), torch.tensor(record["scores"])
        yield _as_recorded(here, recorded, DRIFTS[_dtype(engine)])
    if any(parameter.is_meta for parameter in engine.model.parameters()):
        yield Check("reading", "skipped", "the weights are split over devices")
        return
    rows = rows_of(engine, tasks="scores" in record)
    given = score(engine, rows)
    others = (
        (traits, score(read_otherwise(engine, traits), rows))
        for traits in other_readings(engine.model.spec)
    )
    better = [(float(s.mean()), traits) for traits, s in others if is_better(s, given)]
    mean = f"log probability {float(given.mean()):.2f} a token of a text"
    if not better:
        yield Check("reading", "ok", f"{mean}; no other shift, attention or base is better")
        return
    best, traits = max(better, key=lambda pair: pair[0])
    told_traits = ", ".join(f"{name}={value!r}" for name, value in traits.items())
    yield Check("reading", "wrong", f"{mean}, but {best:.2f} with {told_traits}")


def _as_recorded(here: Tensor, recorded: Tensor, tolerance: float) -> Check:
    """The scores of a text beside those that the makers have recorded."""
    if here.shape != recorded.shape:
        detail = (
            f"its blocks ask for {len(here)} tokens of a text, those recorded for {len(recorded)}"
        )
        return Check("record", "wrong", detail)
    drift = float((here - recorded).abs().mean())
    detail = f"log probabilities of a text differ by {drift:.1e} from those recorded"
    return Check("record", "ok" if drift <= tolerance else "wrong", detail)


def _decodes(engine: Any) -> Iterator[Check]:
    """Three prompts: they end, twice the same, with the exact cache as without one."""
    prompts: Sequence[Any] = PROMPTS
    causal = engine.model.spec.attention == "causal"
    if engine.text is None:
        prompts = [_ids(engine, 8)[0, :4].tolist()] * 3
    options: dict[str, Any] = {"max_new_tokens": TOKENS} | ({} if causal else {"trace": True})
    for prompt in prompts:
        first, again = (engine.generate(prompt, **options) for _ in range(2))
        stats = first.stats
        shown = repr(first.text if first.text is not None else list(first.ids))
        shown = shown if first.ids else "an end id at once"
        detail = f"{stats.nfe} forwards, {stats.tokens_per_second:.0f} tokens/s: {shown[:100]}"
        plain = first if causal else engine.generate(prompt, **options, cache="none")
        if first.canvas != again.canvas:
            yield Check("decode", "wrong", f"not the same twice: {detail}")
        elif first.canvas != plain.canvas and not _near(engine, first, plain):
            yield Check("decode", "wrong", f"not the same without a cache: {detail}")
        else:
            yield Check("decode", "ok", detail)


def _near(engine: Any, ours: dlm.Generation, theirs: dlm.Generation) -> bool:
    """True if rounding explains the difference of two decodes: half precision, and equal
    confidences up to the step in which they part.
    """
    if _dtype(engine) not in (torch.float16, torch.bfloat16):
        return False
    tolerance = TOLERANCES[_dtype(engine)]
    pairs = zip(*([e for e in x.trace if e.type == "commit"] for x in (ours, theirs)), strict=False)
    for mine, other in pairs:
        shared = {p: (i, c) for p, i, c in zip(mine.pos, mine.ids, mine.conf, strict=True)}
        for pos, token, conf in zip(other.pos, other.ids, other.conf, strict=True):
            known, other_conf = shared.get(pos, (token, conf))
            if abs(other_conf - conf) > tolerance:
                return False
            if known != token:
                return True
        if (mine.pos, mine.ids) != (other.pos, other.ids):
            return True
    return True


def _knows_text(engine: Any, folder: Path) -> Iterator[Check]:
    """The weights fill a text clearly better than the same weights shuffled. Spoils the engine."""
    if engine.text is None or any(p.is_meta for p in engine.model.parameters()):
        yield Check("knowledge", "skipped", "there is no text, or no way to shuffle the weights")
        return
    rows = rows_of(engine, tasks="scores" in read_record(folder))
    given = score(engine, rows)
    shuffle_weights(engine)
    shuffled = score(engine, rows)
    detail = f"log probability {float(given.mean()):.2f} a token of a text, " + (
        f"{float(shuffled.mean()):.2f} with the weights shuffled"
    )
    if is_better(given, shuffled):
        yield Check("knowledge", "ok", detail)
    else:
        yield Check("knowledge", "wrong", f"no better than shuffled weights: {detail}")
