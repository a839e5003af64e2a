"""The argument names of the reference codes, translated into ours.

What a name means depends on the call that it is from, so the names of one reference function are
read together: LLaDA's `generate` and Fast-dLLM's, Dream's `diffusion_generate` and Fast-dLLM's
version of it, SDAR's `block_diffusion_generate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from dlm.config.argument_types import MOST
from dlm.config.checks import is_finite, is_integer
from dlm.config.options import FIELDS
from dlm.errors import InvalidRequest, shown, unknown_name

LLADA: Final = ("confidence_eos_eot_inf", "remasking")
DREAM: Final = ("alg", "alg_temp", "eps")
LLADA21: Final = ("editing_threshold", "max_post_steps")
SDAR: Final = ("remasking_strategy", "denoising_steps", "confidence_threshold", "eb_threshold")
CACHES: Final = ("dual_cache", "use_cache")
ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {alias: name for name, field in FIELDS.items() for alias in field.aliases}
)
"""The reference codes' argument names, and the field that each stands for."""
TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {alias: known.type for field in FIELDS.values() for alias, known in field.aliases.items()}
)
"""The type of each name's value, in words."""
NULLABLE: Final = ("top_k", "top_p")
"""Options that the reference codes switch off by None."""


def resolve_aliases(options: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the argument names of the reference codes into ours.

    Aliases of one reference call go together as they do there: guides add up; Dream's names unmask
    the whole canvas, unless its cached version is meant.
    Raises `InvalidRequest` when an alias and the field that it stands for are both given, for
    aliases of different calls, and for requests that a reference code cannot or does not carry out.
    """
    given = {n: v for n, v in options.items() if not (n in NULLABLE and v is None)}
    ours = {name: value for name, value in given.items() if name not in ALIASES}
    theirs = {n: v for n, v in given.items() if n in ALIASES and v is not None and v is not False}
    translated: dict[str, Any] = {}
    if "gen_length" in theirs:
        translated["max_new_tokens"] = theirs["gen_length"]
    if "blocks" not in ours or "block_length" in theirs:
        one = "block_length" in options and options["block_length"] is None
        translated |= _blocks_of(theirs, one_block=one)
    if guides := _guides_of(theirs):
        translated["guide"] = guides
    if rule := _rule_of(theirs, ours):
        translated["unmask"] = rule
    if edit := _edit_of(theirs):
        translated["edit"] = edit
    if "stopping_criteria_idx" in theirs:
        translated["stop"] = f"eos('block', {_ids(theirs['stopping_criteria_idx'])!r}, True)"
    if options.get("use_cache") is False and "dual_cache" in theirs:
        raise InvalidRequest("dual_cache", "is a kind of `use_cache`, which is False")
    if _cached(theirs):
        translated["cache"] = "dual" if "dual_cache" in theirs else "prefix"
    for name in translated:
        if name in ours:
            alias = next((a for a in theirs if ALIASES[a] == name), name)
            raise InvalidRequest(alias, f"stands for `{name}`, which is given as well")
    if theirs.get("alg") == "confidence_threshold":  # its steps are in the rule, or not looked at
        ours.pop("steps", None)
    return {**ours, **translated}


def check_alias(name: str, value: Any) -> None:
    """Raise `InvalidRequest` for a value that the reference codes would not take either.

    Values are written into spec strings of parts, so they are checked first. None is the same as
    no value; ids are checked where they are read, and names that are no alias not at all.
    """
    kind = None if value is None else TYPES.get(name)
    if kind == "flag" and not isinstance(value, bool):
        raise InvalidRequest(name, f"must be True or False, got {shown(value)}")
    if kind == "integer" and (not is_integer(value) or abs(value) >= MOST):
        below = " below 2**31" if is_integer(value) else ""
        raise InvalidRequest(name, f"must be an integer{below}, got {shown(value)}")
    if kind == "number" and not is_finite(value):
        raise InvalidRequest(name, f"must be a finite number, got {shown(value)}")
    if kind == "name" and not isinstance(value, str):
        raise InvalidRequest(name, f"must be a name, got {shown(value)}")


def _ids(value: Any) -> tuple[Any, ...]:
    """The ids of a list; their range is checked later. Raises `InvalidRequest` for other values."""
    if not isinstance(value, list | tuple) or not value or not all(map(is_integer, value)):
        raise InvalidRequest("stopping_criteria_idx", f"must be a list of ids, got {shown(value)}")
    return tuple(value)


def _cached(theirs: Mapping[str, Any]) -> bool:
    return any(name in theirs for name in CACHES)


def _blocks_of(theirs: Mapping[str, Any], *, one_block: bool) -> dict[str, str]:
    """Translate a reference call's block length into the `blocks` option.

    Empty if the call implies none. `one_block`: the call passed None, which means the whole canvas
    in Dream's code.
    """
    if "block_length" in theirs:
        return {"blocks": f"fixed({theirs['block_length']!r}, trained=True)"}
    if theirs.keys() & set(DREAM):
        return {"blocks": "fixed(32)" if _cached(theirs) and not one_block else "whole"}
    return {}


def _guides_of(theirs: Mapping[str, Any]) -> list[str]:
    """LLaDA's operations on the logits."""
    guides = [f"cfg({theirs['cfg_scale']!r})"] if theirs.get("cfg_scale") else []
    return guides + (["forbid('end_of_text')"] if "logits_eos_inf" in theirs else [])


def _edit_of(theirs: Mapping[str, Any]) -> str:
    """LLaDA2.1's editing; empty if it is not asked for."""
    if "editing_threshold" in theirs:
        numbers = ", ".join(repr(theirs[name]) for name in LLADA21 if name in theirs)
        return f"rewrite({numbers}, conf_from='tempered')"
    if "max_post_steps" in theirs:
        raise InvalidRequest("max_post_steps", "bounds the edits of `editing_threshold`: give both")
    return ""


def _rule_of(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """The commit rule of a reference call; empty if none of its names is there."""
    fast = [name for name in ("factor", "threshold") if name in theirs]
    dream = [name for name in DREAM if name in theirs]
    if theirs.get("alg") == "confidence_threshold" and fast == ["threshold"]:
        fast = []
    plain = theirs.get("remasking") == "low_confidence"  # what Fast-dLLM's functions have, too
    llada = [name for name in LLADA if name in theirs and not (fast and plain)]
    sdar = [name for name in SDAR if name in theirs]
    calls = (("", fast), ("Dream's ", dream), ("LLaDA's ", llada), ("SDAR's ", sdar))
    said = [(whose, names[0]) for whose, names in calls if names]
    if len(said) > 1:
        (whose, first), (_, other) = said[:2]
        raise InvalidRequest(other, f"has no meaning beside {whose}`{first}`")
    if len(fast) > 1:
        raise InvalidRequest(
            "factor", "takes the place of `threshold` in Fast-dLLM's code: give one of the two"
        )
    if fast:
        if ours.get("steps") is not None and "edit" not in ours:
            raise InvalidRequest(
                "steps",
                f"has no meaning beside `{fast[0]}`, which decides by itself how many fall; what "
                "LLaDA2 calls so is `denoising_steps`, beside `confidence_threshold`",
            )
        closing = ", last_passes=True" if fast[0] == "factor" else ""
        return f"{fast[0]}({theirs[fast[0]]!r}{closing})"
    if dream:
        return _dream_of(theirs, ours)
    if sdar:
        return _sdar_of(theirs, ours)
    return _topk_of(theirs) if llada else ""


def _topk_of(theirs: Mapping[str, Any]) -> str:
    """LLaDA's rule: scheduled counts, by confidence or at random; end ids last if asked for."""
    scores = {"low_confidence": "confidence", "random": "random"}
    remasking = theirs.get("remasking", "low_confidence")
    if remasking not in scores:
        raise InvalidRequest(
            "remasking", f"must be 'low_confidence' or 'random', got {shown(remasking)}"
        )
    if "confidence_eos_eot_inf" not in theirs:
        return f"topk({scores[remasking]!r})"
    if remasking == "random":
        raise InvalidRequest(
            "confidence_eos_eot_inf", "changes confidences, and remasking 'random' reads none"
        )
    return "topk('confidence', demote='eos', renormalise=True)"


def _dream_of(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Dream's rule: its score of the tempered distribution, on the schedule that falls to `eps`;
    `origin`, its default, has no score. With a cache, Fast-dLLM's version of it.
    """
    scores = {"maskgit_plus": "confidence", "topk_margin": "margin", "entropy": "entropy"}
    algorithm = theirs.get("alg", "origin")
    if algorithm not in (known := ("origin", *scores, "confidence_threshold")):
        raise unknown_name("alg", str(algorithm), known)
    if algorithm == "confidence_threshold":
        return _sure_dream_of(theirs, ours)
    if _cached(theirs) and algorithm != "entropy":
        raise InvalidRequest(
            "alg",
            "must be 'entropy' or 'confidence_threshold' beside a cache, for Fast-dLLM's cached "
            f"code takes the entropy in place of {algorithm!r}",
        )
    eps = f"eps={theirs['eps']!r}" if "eps" in theirs else ""
    if algorithm == "origin":
        if theirs.get("alg_temp"):
            named = ", ".join(map(repr, scores))
            raise InvalidRequest("alg_temp", f"needs an `alg` with a score: {named}")
        return f"ancestral({eps})"
    warm = f"temperature={theirs['alg_temp']!r}" if theirs.get("alg_temp") else ""
    alone = "first_alone=True" if _cached(theirs) else ""
    tempered = "conf_from='tempered'"
    arguments = filter(None, (repr(scores[algorithm]), "'eps'", eps, warm, tempered, alone))
    return f"topk({', '.join(arguments)})"


def _sure_dream_of(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Fast-dLLM's threshold on Dream: with a cache, a block's first position falls alone; without
    one the whole canvas is shared out to the steps. With blocks its code takes `steps`, too, and
    every block takes those that it needs: such calls are accepted as they are published.
    """
    for name in ("alg_temp", "eps"):
        if theirs.get(name):
            raise InvalidRequest(name, "has no meaning beside alg 'confidence_threshold'")
    arguments = f"{theirs.get('threshold', 0.9)!r}, conf_from='tempered'"
    if _cached(theirs) or "block_length" in theirs or "blocks" in ours:
        return f"threshold({arguments}{', first_alone=True' if _cached(theirs) else ''})"
    if not isinstance(ours.get("steps"), int):
        raise InvalidRequest(
            "alg",
            "'confidence_threshold' shares the canvas out to `steps`, which are not given; or "
            "give a `block_length`",
        )
    return f"threshold({arguments}, shares={ours['steps']!r})"


def _sdar_of(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """SDAR's rule of a block: a quota a step, the most confident or the leftmost positions, or all
    that are sure.
    """
    strategy = theirs.get("remasking_strategy", "low_confidence_dynamic")
    known = ("low_confidence_dynamic", "low_confidence_static", "sequential")
    if strategy == "entropy_bounded" or "eb_threshold" in theirs:
        raise InvalidRequest(
            "remasking_strategy",
            f"'entropy_bounded' does not run in SDAR's code: use {', '.join(map(repr, known))}, "
            "or the rule that it is named after, unmask='entropy_bound(0.35)'",
        )
    if strategy not in known:
        raise unknown_name("remasking_strategy", str(strategy), known)
    if strategy != known[0] and "confidence_threshold" in theirs:
        raise InvalidRequest("confidence_threshold", f"has no meaning beside {strategy!r}")
    if ours.get("top_k", 0) != 0 and ours.get("top_p", 1) != 1:
        raise InvalidRequest(
            "top_p",
            "is a share of what `top_k` leaves in SDAR's code, here of everything: give one of "
            "the two",
        )
    threshold = theirs.get("confidence_threshold", 0.85) if strategy == known[0] else 1.0
    steps = f"{theirs['denoising_steps']!r}" if "denoising_steps" in theirs else "None"
    order = ", order='left'" if strategy == "sequential" else ""
    return f"dynamic({threshold!r}, {steps}, 'tempered'{order})"
