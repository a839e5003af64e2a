"""Places of the tensors of a published checkpoint in the decoder, whose projections are fused.

A weight map is `{checkpoint key: Place}`: every decoder parameter is covered exactly once, by one
tensor or by several that each fill a part (query, key and value rows; gate and up rows; one expert
of a stack).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from dlm.model.spec import ModelSpec, MoESpec

ROTARY_TABLE = re.compile(r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$")
STACKED_EXPERTS = re.compile(r"\.experts\.(gate|up|down)_proj$")


class Place(NamedTuple):
    """A decoder parameter, or the part of it that `part` selects.

    `unit_columns`: on the way in each column is divided by its L2 norm (`norm_head` of LLaDA2).
    """

    parameter: str
    part: tuple[int | slice, ...] = ()
    unit_columns: bool = False


@dataclass(frozen=True, slots=True)
class WeightNames:
    """Names in a family's checkpoints; a single name in `qkv` is fused there too (rows Q, K, V)."""

    embedding: str = "model.embed_tokens"
    layer: str = "model.layers.{}."
    attention_norm: str = "input_layernorm"
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    out: str = "self_attn.o_proj"
    q_norm: str = "self_attn.q_norm"
    k_norm: str = "self_attn.k_norm"
    mlp_norm: str = "post_attention_layernorm"
    mlp: str = "mlp."
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    norm: str = "model.norm"
    head: str = "lm_head"


HF_NAMES = WeightNames()
LLADA_NAMES = WeightNames(
    embedding="model.transformer.wte",
    layer="model.transformer.blocks.{}.",
    attention_norm="attn_norm",
    qkv=("q_proj", "k_proj", "v_proj"),
    out="attn_out",
    mlp_norm="ff_norm",
    mlp="",
    gate="ff_proj",
    up="up_proj",
    down="ff_out",
    norm="model.transformer.ln_f",
    head="model.transformer.ff_out",
)
LLADA2_NAMES = WeightNames(
    embedding="model.word_embeddings",
    qkv=("attention.query_key_value",),
    out="attention.dense",
    q_norm="attention.query_layernorm",
    k_norm="attention.key_layernorm",
)


def canonical(key: str) -> str:
    """A checkpoint key without the wrapper names that some published copies add."""
    return key.replace("model.language_model.", "model.", 1).replace(
        "model.lm_head.", "lm_head.", 1
    )


def weight_map(
    spec: ModelSpec, names: WeightNames, *, stacked: bool = False, unit_head: bool = False
) -> dict[str, Place]:
    """Checkpoint key -> its place. A tied head has no key of its own.

    `stacked`: a layer's experts are one `[E, ...]` tensor a projection. `unit_head`: see `Place`.
    """
    places = {
        f"{names.embedding}.weight": Place("embedding.weight"),
        f"{names.norm}.weight": Place("norm.weight"),
    }
    if not spec.tied_head:
        places[f"{names.head}.weight"] = Place("head.weight", unit_columns=unit_head)
    for layer in range(spec.layers):
        theirs, ours = names.layer.format(layer), f"layers.{layer}."
        places.update(_attention(spec, names, theirs, ours))
        theirs, ours = theirs + names.mlp, ours + "mlp."
        if spec.moe is not None and spec.is_moe(layer):
            places.update(_moe(spec.moe, names, theirs, ours, stacked))
        else:
            inner = spec.intermediate_size
            places.update(_swiglu(names, theirs, ours, inner, (".weight", ".weight")))
    return places


def _attention(
    spec: ModelSpec, names: WeightNames, theirs: str, ours: str
) -> Iterator[tuple[str, Place]]:
    """Norms, fused projection, output projection, per-head norms."""
    yield f"{theirs}{names.attention_norm}.weight", Place(f"{ours}attention_norm.weight")
    yield f"{theirs}{names.mlp_norm}.weight", Place(f"{ours}mlp_norm.weight")
    yield f"{theirs}{names.out}.weight", Place(f"{ours}attention.out.weight")
    ends = [(spec.heads + n * spec.kv_heads) * spec.head_dim for n in range(3)]
    parts = [slice(0, ends[0]), slice(ends[0], ends[1]), slice(ends[1], ends[2])]
    rows = [()] if len(names.qkv) == 1 else [(part,) for part in parts]
    for kind in ("weight", "bias") if spec.qkv_bias else ("weight",):
        for name, part in zip(names.qkv, rows, strict=True):
            yield f"{theirs}{name}.{kind}", Place(f"{ours}attention.qkv.{kind}", part)
    if spec.qk_norm:
        yield f"{theirs}{names.q_norm}.weight", Place(f"{ours}attention.q_norm.weight")
        yield f"{theirs}{names.k_norm}.weight", Place(f"{ours}attention.k_norm.weight")


def _swiglu(
    names: WeightNames,
    theirs: str,
    ours: str,
    inner: int,
    ends: tuple[str, str] = (".weight", ""),
    expert: tuple[int | slice, ...] = (),
) -> Iterator[tuple[str, Place]]:
    """Gate, up and down projections with `inner` hidden units.

    `ends`: endings of their names and of ours. `expert`: the index into stacked experts.
    """
    for name, rows in ((names.gate, slice(0, inner)), (names.up, slice(inner, 2 * inner))):
        yield f"{theirs}{name}{ends[0]}", Place(f"{ours}gate_up{ends[1]}", (*expert, rows))
    yield f"{theirs}{names.down}{ends[0]}", Place(f"{ours}down{ends[1]}", expert)


def _moe(
    moe: MoESpec, names: WeightNames, theirs: str, ours: str, stacked: bool
) -> Iterator[tuple[str, Place]]:
    """Router, routed experts, shared experts."""
    inner, experts = moe.intermediate_size, f"{theirs}experts."
    yield f"{theirs}gate.weight", Place(f"{ours}router")
    if moe.selection_bias:
        yield f"{theirs}gate.expert_bias", Place(f"{ours}selection_bias")
    if stacked:
        yield from _swiglu(names, experts, ours, inner, ("", ""), (slice(None),))
    else:
        for number in range(moe.experts):
            yield from _swiglu(names, f"{experts}{number}.", ours, inner, expert=(number,))
    if moe.shared_experts:
        shared = inner * moe.shared_experts
        yield from _swiglu(names, f"{theirs}shared_experts.", f"{ours}shared_", shared)
