"""From the fields of a body to the options of the engine."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import dlm
from dlm.errors import shortened, unknown_name
from dlm.serve.errors import api_error, refused
from dlm.serve.extents import check_extent
from dlm.serve.fields import Sampling
from dlm.serve.schemas import (
    ChatRequest,
    CompletionRequest,
    FimRequest,
    ResponsesRequest,
)
from dlm.serve.search_fields import SEARCH_FIELDS, search_of

EFFORTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "none": ("fast",),
        "instant": ("fast",),
        "minimal": ("fast",),
        "low": ("fast",),
        "medium": ("adaptive", "fast"),
        "high": ("quality",),
        "xhigh": ("quality",),
        "max": ("quality",),
    }
)
"""The presets of each `reasoning_effort`; the first one that the model can have is taken."""

NAMES: Final = frozenset(dlm.FIELDS).union(*(field.aliases for field in dlm.FIELDS.values()))
"""All names of options."""
PARTS: Final = ("blocks", "unmask", "edit", "guide", "stop", "cache", "steps", "preset")
"""Options of a server that a request with a preset of its own does not take over."""
SCHEDULED: Final = frozenset({"unmask", "blocks", "edit"})
"""Parts of a request that do not go with the `steps` of a server."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The wishes of a body, apart from its prompt and length.

    options: of the engine
    names: for an option, the field of the body that set it
    events: send the events of the canvas, or the candidates of a search
    given: options of the `dlm` object by the names of the engine
    search: the search that is asked for
    """

    options: Mapping[str, Any]
    names: Mapping[str, str]
    events: bool
    given: Mapping[str, Any]
    search: dlm.SearchOptions | None = None


def asked_of(body: Sampling, info: dlm.ModelInfo, defaults: Mapping[str, Any]) -> Asked:
    """The options that a body asks for, on top of the server's `defaults`.

    Raises `ApiError` 400 that names the field.
    """
    extension = dict(body.dlm or {})
    events = extension.pop("events", False)
    if not isinstance(events, bool):
        raise refused("dlm.events", f"`dlm.events`: must be true or false, got {events!r}")
    search = search_of(extension, body)
    given = _extension(extension)
    options = {**_defaults(body, given, defaults), **given}
    if body.reasoning_effort is not None:
        if "preset" in given:
            rule = "stands for a preset: leave it out beside `dlm.preset`"
            raise refused("reasoning_effort", f"`reasoning_effort` {rule}")
        options["preset"] = preset_of(body.reasoning_effort, info)
    options |= _sampling(body, defaults.get("seed"))
    _add_stops(options, body, info)
    _add_guides(options, body, info)
    names = {"top_logprobs": "logprobs"}
    names["guide"] = "min_tokens" if body.min_tokens else "ignore_eos"
    names |= {name: f"dlm.{name}" for name in given}
    return Asked(options, names, events, given, search)


def preset_of(effort: str, info: dlm.ModelInfo) -> str:
    """The preset of a `reasoning_effort`."""
    return next(name for name in EFFORTS[effort] if dlm.PRESETS[name].options(info) is not None)


def _extension(extension: Mapping[str, Any]) -> dict[str, Any]:
    """The `dlm` object by the names of the engine. Raises `ApiError` 400."""
    for name, value in extension.items():
        if name not in NAMES:
            known = [known for known, field in dlm.FIELDS.items() if field.http]
            known += [*SEARCH_FIELDS, "events"]
            param = f"dlm.{shortened(name, 40)}"
            raise refused(param, f"`{param}`: {unknown_name('dlm', name, known).message}")
        template = name in ("infill", "start")
        check_extent(f"dlm.{shortened(name, 40)}", value, template=template)
    try:
        dlm.GenerationConfig.check_untrusted(extension)
        return dlm.GenerationConfig.named(extension)
    except dlm.InvalidRequest as error:
        option = error.param.partition(": ")[0]
        param = f"dlm.{shortened(option, 40)}" if option in {*dlm.FIELDS, *extension} else "dlm"
        raise api_error(error, {option: param}) from error


def _defaults(
    body: Sampling, given: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """The server's defaults: without its parts where the request has a preset of its own, without
    its steps where it has a rule or blocks of its own, without its stop strings where it has some.
    """
    own = "preset" in given or body.reasoning_effort is not None
    found = {name: value for name, value in defaults.items() if not (own and name in PARTS)}
    if SCHEDULED.intersection(given):
        found.pop("steps", None)
    if body.stop is not None and "stop" in found:
        texts = dlm.GenerationConfig.from_options({"stop": found["stop"]}).stop_strings()
        found["stop"] = [rule for rule in _listed(found["stop"]) if rule not in texts]
    return found


def _sampling(body: Sampling, seed: int | None) -> dict[str, Any]:
    """The options that OpenAI's fields set. A request without a seed gets one of its own, unless
    the server has a default.
    """
    if body.seed is None and seed is None:
        seed = secrets.randbits(32)
    fields = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": None if body.top_k is None else max(body.top_k, 0),
        "n": body.n,
        "seed": seed if body.seed is None else body.seed,
        "logit_bias": _biases(body.logit_bias),
        "top_logprobs": _alternatives(body),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _alternatives(body: Sampling) -> int | None:
    """The number of alternatives to each token."""
    if isinstance(body, CompletionRequest):
        return body.logprobs or None
    if isinstance(body, ChatRequest) and body.top_logprobs is not None:
        if not body.logprobs:
            raise refused("top_logprobs", "`top_logprobs` needs `logprobs: true`")
        return body.top_logprobs or None
    return body.top_logprobs or None if isinstance(body, ResponsesRequest) else None


def _biases(given: Mapping[str, float] | None) -> dict[int, float] | None:
    """OpenAI's map with ids as strings. Raises `ApiError` 400."""
    if given is None:
        return None
    found: dict[int, float] = {}
    for token, bias in given.items():
        if not token.isdecimal() or not token.isascii() or len(token) > 10:
            raise refused("logit_bias", f"`logit_bias`: keys must be token ids, got {token[:40]!r}")
        if not -100 <= bias <= 100:
            rule = "must be between -100 and 100"
            raise refused("logit_bias", f"`logit_bias.{token}`: {rule}, got {bias:g}")
        if int(token) in found:
            raise refused("logit_bias", f"`logit_bias`: the id {int(token)} is there twice")
        found[int(token)] = bias
    return found


def stop_texts(body: Sampling) -> list[str]:
    """The stop strings of a body; empty ones and nulls ask for nothing."""
    given = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return [text for text in given if text]


def _add_stops(options: dict[str, Any], body: Sampling, info: dlm.ModelInfo) -> None:
    """Add the stop strings and ids of a body to the rules that there are."""
    rules = _listed(options.get("stop"))
    try:
        info.check_answer_ids("stop_token_ids", body.stop_token_ids or ())
    except dlm.InvalidRequest as error:
        raise api_error(error) from error
    if body.stop_token_ids:
        edited = options.get("edit") or _preset_edits(options.get("preset"), info)
        when, only = "block" if edited else "prefix", bool(body.ignore_eos)
        rules.append(f"eos({when!r}, ids={tuple(body.stop_token_ids)!r}, only={only})")
    rules += map(dlm.StopString, stop_texts(body))
    if rules:
        options["stop"] = rules


def _preset_edits(name: Any, info: dlm.ModelInfo) -> bool:
    """True if a preset has an editor."""
    options = dlm.PRESETS[name].options(info) if name in dlm.PRESETS else None
    return "edit" in (options or {})


def _add_guides(options: dict[str, Any], body: Sampling, info: dlm.ModelInfo) -> None:
    """Forbid end ids: everywhere (`ignore_eos`), or among the first tokens (`min_tokens`)."""
    guides = []
    if body.ignore_eos and info.eos_ids:
        guides.append(f"forbid({info.eos_ids!r})")
    ends = tuple(dict.fromkeys((*info.eos_ids, *(body.stop_token_ids or ()))))
    if body.min_tokens and ends:
        guides.append(f"forbid({ends!r}, before={body.min_tokens})")
    if guides:
        options["guide"] = [*_listed(options.get("guide")), *guides]


def _listed(value: Any) -> list[Any]:
    """The items of an option that takes one or several."""
    if value is None:
        return []
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def length_field(body: Sampling) -> tuple[str, int | None]:
    """The field that bounds the new tokens, and its value."""
    if isinstance(body, ChatRequest):
        if body.max_completion_tokens is not None:
            return "max_completion_tokens", body.max_completion_tokens
        return "max_tokens", body.max_tokens
    if isinstance(body, ResponsesRequest):
        return "max_output_tokens", body.max_output_tokens
    assert isinstance(body, CompletionRequest | FimRequest)
    return "max_tokens", body.max_tokens
