"""The rotary settings of a `config.json`, resolved as transformers resolves them.

Newer files keep everything in `rope_parameters`, older ones in `rope_theta`, `rope_scaling` and
`partial_rotary_factor`; some keep both, or one table for each kind of layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from dlm.model.hf_config import Fields, is_positive, is_whole
from dlm.model.rotary import RotaryScaling

DEFAULT_THETA: Final = 10_000.0
"""The base where no field names one, in transformers' classes and in the families' own."""
LAYER_KINDS: Final = ("full_attention", "sliding_attention", "chunked_attention")
"""Keys of a table that holds one table for each kind of layer."""
FIXED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "linear": ("factor",),
        "dynamic": ("factor",),
        "yarn": (),
        "longrope": ("short_factor", "long_factor"),
        "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
        "proportional": (),
    }
)
"""The scaled kinds, and the settings that each cannot do without."""
NUMBERS: Final = (
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "partial_rotary_factor",
)
LISTS: Final = ("short_factor", "long_factor")
KNOWN: Final = (
    "rope_type",
    "type",
    "rope_theta",
    "original_max_position_embeddings",
    "truncate",
    *NUMBERS,
    *LISTS,
)


class RopeSettings(NamedTuple):
    """The rotary part of a spec.

    `theta`: the base of the angles.
    `turned`: leading dims of a head that turn.
    `scaling`: None for plain RoPE.
    `max_length`: the longest canvas that the model is made for.
    """

    theta: float
    turned: int
    scaling: RotaryScaling | None
    max_length: int


def read_rope(fields: Fields, head_dim: int, fraction: float | None) -> RopeSettings:
    """The rotary settings of a config.json. Raises `InvalidRequest`.

    `fraction`: the part of each head that the family turns by default, None if its layers always
    turn all of it.
    """
    name, table = _table(fields)
    most = fields.size("max_position_embeddings")
    theta = _number(fields, name, "rope_theta", table.get("rope_theta"))
    kind = table.get("rope_type", table.get("type", "default"))
    if kind != "default" and kind not in FIXED:
        raise fields.wrong(
            name, f"of a type among 'default', {', '.join(map(repr, FIXED))}", dict(table)
        )
    partial = _partial(fields, name, table, fraction, whole=kind == "proportional")
    turned = int(head_dim * partial)
    if turned % 2 or turned < 2:
        raise fields.wrong(name, f"such that an even number of {head_dim} dims turns", turned)
    if kind == "default":
        return RopeSettings(theta, turned, None, most)
    scaling = RotaryScaling(kind, tuple(_settings(fields, name, table, kind, turned)), most)
    factor = dict(scaling.settings).get("factor") or 1.0
    if kind in ("yarn", "dynamic"):  # the files of these give the length before it was scaled
        most = max(most, int(factor * scaling.original_length))
    return RopeSettings(theta, turned, scaling, most)


def _table(fields: Fields) -> tuple[str, dict[str, Any]]:
    """The field that holds the settings, and these without nulls, older fields included.

    `rope_scaling` goes before `rope_parameters`, and a table before the fields beside it.
    """
    given = fields.get("rope_scaling") or {}
    name = "rope_scaling" if given else "rope_parameters"
    given = given or fields.get("rope_parameters", {})
    if not isinstance(given, Mapping):
        raise fields.wrong(name, "null or a table", given)
    kinds = [kind for kind in LAYER_KINDS if kind in given]
    if kinds:
        own = given.get("full_attention")
        if not isinstance(own, Mapping) or set(given) - set(LAYER_KINDS):
            raise fields.wrong(
                name, "one table, or one for each kind of layer, 'full_attention' among them", given
            )
        given = own
    unknown = sorted(key for key in set(given) - set(KNOWN) if given[key] is not None)
    if unknown:
        raise fields.wrong(name, f"without {', '.join(map(repr, unknown))}, unknown here", given)
    table = {key: value for key, value in given.items() if value is not None}
    beside = {"rope_theta": DEFAULT_THETA} if "rope_theta" not in fields.config else {}
    for key in ("rope_theta", "partial_rotary_factor"):
        if fields.get(key) is not None:
            beside[key] = fields.get(key)
    if fields.get("original_max_position_embeddings") is not None:
        table["original_max_position_embeddings"] = fields.get("original_max_position_embeddings")
    return name, beside | table


def _partial(
    fields: Fields, name: str, table: Mapping[str, Any], fraction: float | None, *, whole: bool
) -> float:
    """The part of each head that turns; `whole`: this kind turns all and stills some inside."""
    given = table.get("partial_rotary_factor")
    asked = None if given is None else _number(fields, name, "partial_rotary_factor", given)
    if asked is not None and asked > 1:
        raise fields.wrong("partial_rotary_factor", "at most 1", given)
    if whole:
        return 1.0
    if fraction is None and asked not in (None, 1.0):
        raise fields.wrong("partial_rotary_factor", "1: this family turns whole heads", given)
    return 1.0 if fraction is None else fraction if asked is None else asked


def _settings(
    fields: Fields, name: str, table: Mapping[str, Any], kind: str, turned: int
) -> list[tuple[str, Any]]:
    """The settings of a scaled kind, checked."""
    missing = [key for key in FIXED[kind] if key not in table]
    if missing:
        needs = ", ".join(map(repr, FIXED[kind]))
        raise fields.wrong(name, f"a table with {needs} for type {kind!r}", dict(table))
    found: dict[str, Any] = {
        key: _number(fields, name, key, table[key]) for key in NUMBERS if key in table
    }
    for key in (key for key in LISTS if key in table):
        found[key] = _factors(fields, name, key, table[key], turned // 2)
    if "truncate" in table:
        if not isinstance(table["truncate"], bool):
            raise fields.wrong(f"{name}.truncate", "true or false", table["truncate"])
        found["truncate"] = table["truncate"]
    most = fields.size("max_position_embeddings")
    if kind in ("yarn", "longrope", "llama3"):
        length = table.get("original_max_position_embeddings", most)
        if not is_whole(length) or length < 1:
            key = f"{name}.original_max_position_embeddings"
            raise fields.wrong(key, "a positive integer", length)
        found["original_max_position_embeddings"] = length
        if kind == "yarn" and "factor" not in found:
            if "original_max_position_embeddings" not in table:
                raise fields.wrong(name, "a table with 'factor' for type 'yarn'", dict(table))
            found["factor"] = most / length
    if kind == "llama3" and found["high_freq_factor"] <= found["low_freq_factor"]:
        raise fields.wrong(name, "with `high_freq_factor` above `low_freq_factor`", dict(table))
    return sorted(found.items())


def _number(fields: Fields, name: str, key: str, value: Any) -> float:
    """A positive number of a table, or of a field beside it."""
    if value is None:
        raise fields.missing(key)
    if not is_positive(value):
        where = key if fields.get(key) == value else f"{name}.{key}"
        raise fields.wrong(where, "a positive number", value)
    return float(value)


def _factors(fields: Fields, name: str, key: str, value: Any, count: int) -> tuple[float, ...]:
    """One positive number for each frequency."""
    if not isinstance(value, list | tuple) or len(value) != count:
        raise fields.wrong(f"{name}.{key}", f"a list of {count} numbers", value)
    return tuple(_number(fields, name, key, number) for number in value)
