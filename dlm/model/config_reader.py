"""From the files of a checkpoint to its `ModelSpec`, with every disagreement named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Any, Final, get_args

from dlm.errors import InvalidRequest, unknown_name
from dlm.model.families import FAMILIES, Family
from dlm.model.hf_config import Fields, is_positive, is_whole, token_ids
from dlm.model.rope_settings import read_rope
from dlm.model.spec import Attention, ModelSpec
from dlm.model.weight_map import STACKED_EXPERTS, Place, weight_map

# How tokenizers spell the mask.
MASK_TOKENS = (
    "<|mask|>",
    "<|MASK|>",
    "<|mdm_mask|>",
    "<[MASK]>",
    "[MASK]",
    "|<MASK>|",
    "<mask>",
    "<M>",
)


def read_spec(
    config: Mapping[str, Any],
    generation: Mapping[str, Any] | None = None,
    tokens: Mapping[str, int] | None = None,
    overrides: Mapping[str, Any] | None = None,
    path: str = "config.json",
) -> ModelSpec:
    """The spec that the files of a checkpoint describe.

    config: content of config.json
    generation: content of generation_config.json
    tokens: the tokenizer's added tokens -> ids; they supply a mask id that the config lacks
    overrides: values in place of the files', for "family" and the fields of `OVERRIDABLE`
    path: of config.json, for messages

    Raises `InvalidRequest` naming the file and the field.
    """
    given = dict(overrides or {})
    name = _family(given.pop("family", None), config, path)
    row = FAMILIES[name]
    fields = Fields(config, name, row.fields, path)
    for field, allowed in row.fixed.items():
        fields.fixed(field, *allowed)
    fields.no_nesting()
    fields.no_windows()
    spec = _override(_read_sizes(fields, row), given)
    spec = _with_special_ids(spec, fields, row, generation or {}, tokens or {})
    return _check(_override(spec, given), given, fields)


def checkpoint_map(
    spec: ModelSpec, config: Mapping[str, Any], found: Iterable[str]
) -> dict[str, Place]:
    """The weight map of a checkpoint, whose canonical keys `found` show if experts are stacked."""
    stacked = any(STACKED_EXPERTS.search(key) for key in found)
    unit_head = bool(config.get("norm_head")) and spec.family == "llada2_moe"
    return weight_map(spec, FAMILIES[spec.family].names, stacked=stacked, unit_head=unit_head)


def _family(given: Any, config: Mapping[str, Any], path: str) -> str:
    """The family by the caller's word, by `model_type`, or by the class that the file names.

    Raises `InvalidRequest` for one that is unknown.
    """
    name, classes = given or config.get("model_type"), config.get("architectures")
    if name is None and isinstance(classes, list):
        name = next((row for row in FAMILIES if FAMILIES[row].architecture in classes[:1]), None)
    if name is None:
        raise InvalidRequest("model", f"{path} lacks the field `model_type`")
    if isinstance(name, str) and name in FAMILIES:
        return name
    found = unknown_name("model", str(name), DIFFUSION).message
    if given:
        raise InvalidRequest("overrides", f"`family` {found}")
    raise InvalidRequest("model", f"{path}: `model_type` {found}")


def _read_sizes(fields: Fields, row: Family) -> ModelSpec:
    """Everything but the special ids."""
    heads, hidden = fields.size("num_attention_heads"), fields.size("hidden_size")
    absent = row.head_dim if "head_dim" not in fields.config else None
    head_dim = fields.size("head_dim", absent or hidden // heads)
    if hidden % heads and "head_dim" not in fields.config:
        raise fields.wrong("hidden_size", f"a multiple of the {heads} heads", hidden)
    rope = read_rope(fields, head_dim, row.rotary_fraction)
    return ModelSpec(
        family=fields.family,
        vocab_size=fields.size("embedding_size", fields.size("vocab_size")),
        hidden_size=hidden,
        layers=fields.size("num_hidden_layers"),
        heads=heads,
        kv_heads=fields.size(
            "num_key_value_heads", 1 if fields.get("multi_query_attention") else heads
        ),
        head_dim=head_dim,
        intermediate_size=fields.size("intermediate_size", fields.count("mlp_ratio") * hidden),
        max_length=rope.max_length,
        rope_theta=rope.theta,
        rotary_dim=None if rope.turned == head_dim else rope.turned,
        rotary_scaling=rope.scaling,
        norm_eps=fields.number("rms_norm_eps"),
        qk_norm=fields.flag("use_qk_norm", row.qk_norm),
        qkv_bias=fields.flag("use_qkv_bias", row.qkv_bias),
        tied_head=fields.flag("tie_word_embeddings", row.tied_head),
        moe=row.moe(fields) if row.moe else None,
        attention=row.attention,
        block_length=fields.size(*row.block) if row.block else None,
        shift=row.shift,
    )


def _with_special_ids(
    spec: ModelSpec,
    fields: Fields,
    row: Family,
    generation: Mapping[str, Any],
    tokens: Mapping[str, int],
) -> ModelSpec:
    """Add mask, end, begin and pad ids; published ids count where the vocabulary has them."""
    spelled = [tokens[token] for token in MASK_TOKENS if token in tokens]
    fallback = spelled[0] if len(spelled) == 1 else row.mask_id
    if fallback is not None and fallback >= spec.vocab_size:
        fallback = None
    mask_id = None if spec.attention == "causal" else fields.token("mask_token_id", fallback)
    other = PurePath(fields.path).with_name("generation_config.json")
    ends = token_ids(f"{fields.path}: `eos_token_id`", fields.get("eos_token_id"))
    ends += token_ids(f"{other}: `eos_token_id`", generation.get("eos_token_id"))
    ends += [token for token in row.stop_ids if token < spec.vocab_size]
    return dataclasses.replace(
        spec,
        mask_id=mask_id,
        eos_ids=tuple(dict.fromkeys(ends)),
        bos_id=fields.token("bos_token_id"),
        pad_id=fields.token("pad_token_id"),
    )


def _override(spec: ModelSpec, given: Mapping[str, Any]) -> ModelSpec:
    """The spec with the caller's corrections."""
    for name in given:
        if name not in OVERRIDABLE:
            raise unknown_name("overrides", name, ("family", *OVERRIDABLE))
    changes = dict(given)
    if "eos_ids" in changes:
        ends = changes["eos_ids"]
        changes["eos_ids"] = tuple(ends) if isinstance(ends, list | tuple) else (ends,)
    return dataclasses.replace(spec, **changes)


def _check(spec: ModelSpec, given: Mapping[str, Any], fields: Fields) -> ModelSpec:
    """Every trait must be of its kind and all of them must agree. Raises `InvalidRequest`."""

    def refuse(name: str, rule: str, value: Any) -> InvalidRequest:
        if name in given:
            return InvalidRequest("overrides", f"`{name}` must be {rule}, got {value!r}")
        field = fields.real(FIELD_NAMES.get(name, name))
        where = fields.path + (" or generation_config.json" if name == "eos_ids" else "")
        wrong = f"{where}: `{field}` must be {rule}, got {value!r}"
        remedy = f"; correct it with overrides={{{name!r}: ...}}" if name in OVERRIDABLE else ""
        return InvalidRequest("model", wrong + remedy)

    for name, (rule, good) in TRAITS.items():
        value = getattr(spec, name)
        if not good(value):
            raise refuse(name, rule, value)
    for name in ("mask_id", "eos_ids", "bos_id", "pad_id"):
        held = getattr(spec, name)
        for value in held if name == "eos_ids" else [] if held is None else [held]:
            if not (is_whole(value) and 0 <= value < spec.vocab_size):
                raise refuse(name, f"in 0..{spec.vocab_size - 1}", value)
    if spec.heads % spec.kv_heads:
        raise refuse("heads", f"a multiple of the {spec.kv_heads} key/value heads", spec.heads)
    if spec.attention == "block_causal" and spec.block_length is None:
        raise refuse("block_length", "given for a block-causal model", None)
    if spec.mask_id is not None and spec.mask_id in spec.eos_ids:
        raise refuse("mask_id", f"none of the end ids {spec.eos_ids}", spec.mask_id)
    return spec


# The rule for each trait that can be overridden, in words and as a test; ids are checked apart.
TRAITS: Final[Mapping[str, tuple[str, Callable[[Any], bool]]]] = {
    "attention": (f"one of {get_args(Attention)}", lambda value: value in get_args(Attention)),
    "block_length": (
        "a positive integer or None",
        lambda value: value is None or (is_whole(value) and value > 0),
    ),
    "shift": ("True or False", lambda value: isinstance(value, bool)),
    "tied_head": ("True or False", lambda value: isinstance(value, bool)),
    "max_length": ("a positive integer", lambda value: is_whole(value) and value > 0),
    "rope_theta": ("a positive number", is_positive),
    "norm_eps": ("a positive number", is_positive),
}
OVERRIDABLE = (*TRAITS, "mask_id", "eos_ids", "bos_id", "pad_id")
FIELD_NAMES: Final[Mapping[str, str]] = {
    "mask_id": "mask_token_id",
    "eos_ids": "eos_token_id",
    "bos_id": "bos_token_id",
    "pad_id": "pad_token_id",
    "heads": "num_attention_heads",
    "max_length": "max_position_embeddings",
    "tied_head": "tie_word_embeddings",
    "norm_eps": "rms_norm_eps",
}
"""Traits -> the fields that hold them, where these have other names."""
DIFFUSION: Final = tuple(name for name in FAMILIES if FAMILIES[name].attention != "causal")
"""The families that can be decoded, as against those that assist."""
