"""The table of generation options, and the names that the reference codes give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from dlm.errors import InvalidRequest


class Field(NamedTuple):
    """One option: its type in words, its default, the reference codes' name for it, HTTP, and
    what it does.
    """

    type: str
    default: str
    alias: str
    http: bool
    meaning: str


FIELDS: Final[Mapping[str, Field]] = MappingProxyType(
    {
        "max_new_tokens": Field(
            "integer", "128", "gen_length", True, "length of the masked canvas behind the prompt"
        ),
        "steps": Field(
            "integer",
            "one token a step",
            "steps",
            True,
            "denoising steps for the whole answer (topk)",
        ),
        "blocks": Field("part", "fixed", "block_length=32", True, "where blocks end"),
        "unmask": Field(
            "part", "threshold(0.9)", "threshold, remasking", True, "what a step commits"
        ),
        "edit": Field("parts", "none", "", True, "what a step revises"),
        "guide": Field(
            "parts", "none", "cfg_scale, logits_eos_inf", True, "operations on the logits"
        ),
        "stop": Field(
            "parts, strings", "eos", "", True, "end rules, and strings that end the text"
        ),
        "cache": Field(
            "part", "the exact one", "use_cache, dual_cache", True, "which keys are reused"
        ),
        "temperature": Field("number", "0", "temperature", True, "0 takes the most likely token"),
        "top_p": Field("number", "1", "top_p", True, "draw from the best ids that hold this mass"),
        "top_k": Field("integer", "0 (off)", "top_k", True, "draw from this many best ids"),
        "seed": Field("integer", "0", "", True, "same seed, same result"),
        "n": Field("integer", "1", "", True, "choices, from seed paths 0 to n-1"),
        "logit_bias": Field("map", "{}", "", True, "added to the logits of ids"),
        "trace": Field("boolean", "false", "", False, "keep the events in the result"),
    }
)
"""Every option of `GenerationConfig`."""


def resolve_aliases(options: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the argument names of the public reference codes (LLaDA, Fast-dLLM) into ours.

    Raises `InvalidRequest` when an alias and the field it stands for are both given.
    """
    out = dict(options)
    for alias, translate in _ALIASES.items():
        if alias not in out:
            continue
        name, value = translate(out.pop(alias))
        if value is None:
            continue
        if name in out:
            raise InvalidRequest(alias, f"stands for `{name}`, which is given as well")
        out[name] = value
    return out


def _unmask_of(remasking: object) -> tuple[str, str]:
    scores = {"low_confidence": "confidence", "random": "random"}
    if remasking not in scores:
        raise InvalidRequest(
            "remasking", f"must be 'low_confidence' or 'random', got {remasking!r}"
        )
    return "unmask", f"topk(score={scores[str(remasking)]!r})"


_ALIASES: Final[Mapping[str, Callable[[Any], tuple[str, Any]]]] = MappingProxyType(
    {
        "gen_length": lambda v: ("max_new_tokens", v),
        "block_length": lambda v: ("blocks", f"fixed({v!r})"),
        "threshold": lambda v: ("unmask", None if v is None else f"threshold({v!r})"),
        "remasking": _unmask_of,
        "cfg_scale": lambda v: ("guide", f"cfg({v!r})" if v else None),
        "logits_eos_inf": lambda v: ("guide", "forbid('eos')" if v else None),
        "confidence_eos_eot_inf": lambda v: ("unmask", "topk(demote='eos')" if v else None),
    }
)
