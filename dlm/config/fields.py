"""The table of generation options, and the names that the reference codes give them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from dlm.errors import InvalidRequest, unknown_name


class Field(NamedTuple):
    """One option of a request and its documentation.

    Its type in words, its default, the name that reference codes give it, whether HTTP accepts it,
    and what it does.
    """

    type: str
    default: str
    alias: str
    http: bool
    meaning: str


FIELDS: Final[Mapping[str, Field]] = MappingProxyType(
    {
        "max_new_tokens": Field(
            "integer",
            "128, or as `infill`",
            "gen_length",
            True,
            "length of the masked canvas behind the prompt",
        ),
        "infill": Field(
            "template",
            "nothing",
            "",
            True,
            "what is given of the answer: a text with holes `[[mask:24]]`, ids with None where it "
            "is open, or texts and ids by their offsets",
        ),
        "steps": Field(
            "integer",
            "one token a step",
            "steps",
            True,
            "denoising steps for the whole answer (topk)",
        ),
        "blocks": Field("part", "fixed", "block_length", True, "where blocks end"),
        "unmask": Field(
            "part",
            "threshold(0.9)",
            "threshold, factor, remasking, alg, alg_temp, eps, confidence_eos_eot_inf",
            True,
            "what a step commits",
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
        "preset": Field(
            "name",
            "none",
            "",
            True,
            "parts that go well together: quality, fast, leap, adaptive, revise",
        ),
        "trace": Field("boolean", "false", "", False, "keep the events in the result"),
    }
)
"""Every option of `GenerationConfig`."""


def resolve_aliases(options: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the argument names of the reference codes (LLaDA, Fast-dLLM, Dream) into ours.

    Aliases of one reference call go together as they do there: guides add up, a factor takes the
    place of a threshold; Dream's names unmask the whole canvas. Raises `InvalidRequest`
    when an alias and the field that it stands for are both given, and for aliases of different
    calls.
    """
    ours = {name: value for name, value in options.items() if name not in ALIASES}
    theirs = {n: v for n, v in options.items() if n in ALIASES and v is not None and v is not False}
    translated: dict[str, Any] = {}
    if "gen_length" in theirs:
        translated["max_new_tokens"] = theirs["gen_length"]
    if "block_length" in theirs:
        translated["blocks"] = f"fixed({theirs['block_length']!r})"
    elif theirs.keys() & DREAM and "blocks" not in ours:
        translated["blocks"] = "whole"
    guides = [f"cfg({theirs['cfg_scale']!r})"] if theirs.get("cfg_scale") else []
    guides += ["forbid('eos')"] if "logits_eos_inf" in theirs else []
    if guides:
        translated["guide"] = guides
    if rule := _rule_of(theirs):
        translated["unmask"] = rule
    if "dual_cache" in theirs or "use_cache" in theirs:
        translated["cache"] = "dual" if "dual_cache" in theirs else "prefix"
    for name in translated:
        if name in ours:
            alias = next(a for a in theirs if ALIASES[a] == name)
            raise InvalidRequest(alias, f"stands for `{name}`, which is given as well")
    return {**ours, **translated}


def _rule_of(theirs: Mapping[str, Any]) -> str:
    """The commit rule of a reference call; empty where none of its names is there."""
    sure = [name for name in ("factor", "threshold") if name in theirs]
    dream = [name for name in DREAM if name in theirs]
    llada = [name for name in ("confidence_eos_eot_inf", "remasking") if name in theirs]
    plain = theirs.get("remasking") == "low_confidence"
    others = [name for name in (*dream, *llada) if not (plain and name == "remasking")]
    if sure and others:
        raise InvalidRequest(others[0], f"has no meaning beside `{sure[0]}`")
    if dream and llada:
        raise InvalidRequest(llada[0], f"is LLaDA's and has no meaning beside Dream's `{dream[0]}`")
    if sure:
        return f"{sure[0]}({theirs[sure[0]]!r})"
    if dream:
        return _dream_of(theirs)
    return _topk_of(theirs) if llada else ""


def _topk_of(theirs: Mapping[str, Any]) -> str:
    """LLaDA's rule: scheduled counts, by confidence or at random; end ids last if asked for."""
    scores = {"low_confidence": "confidence", "random": "random"}
    remasking = theirs.get("remasking", "low_confidence")
    if remasking not in scores:
        raise InvalidRequest(
            "remasking", f"must be 'low_confidence' or 'random', got {remasking!r}"
        )
    demote = ", demote='eos'" if "confidence_eos_eot_inf" in theirs else ""
    return f"topk({scores[remasking]!r}{demote})"


def _dream_of(theirs: Mapping[str, Any]) -> str:
    """Dream's rule: its score of the tempered distribution, on the schedule that falls to `eps`;
    `origin`, its default, has no score.
    """
    scores = {"maskgit_plus": "confidence", "topk_margin": "margin", "entropy": "entropy"}
    algorithm = theirs.get("alg", "origin")
    if algorithm not in ("origin", *scores):
        raise unknown_name("alg", str(algorithm), ("origin", *scores))
    eps = f"eps={theirs['eps']!r}" if "eps" in theirs else ""
    if algorithm == "origin":
        if theirs.get("alg_temp"):
            known = ", ".join(map(repr, scores))
            raise InvalidRequest("alg_temp", f"needs an `alg` with a score: {known}")
        return f"ancestral({eps})"
    warm = f"temperature={theirs['alg_temp']!r}" if theirs.get("alg_temp") else ""
    tempered = "conf_from='tempered'"
    arguments = filter(None, (repr(scores[algorithm]), "'eps'", eps, warm, tempered))
    return f"topk({', '.join(arguments)})"


DREAM: Final = ("alg", "alg_temp", "eps")
ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "gen_length": "max_new_tokens",
        "block_length": "blocks",
        "factor": "unmask",
        "threshold": "unmask",
        "remasking": "unmask",
        "alg": "unmask",
        "alg_temp": "unmask",
        "eps": "unmask",
        "confidence_eos_eot_inf": "unmask",
        "cfg_scale": "guide",
        "logits_eos_inf": "guide",
        "use_cache": "cache",
        "dual_cache": "cache",
    }
)
"""The reference codes' argument names, and the field that each stands for."""
