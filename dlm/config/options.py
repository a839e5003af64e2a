"""The table of generation options, with the names that the reference codes give them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple


class Alias(NamedTuple):
    """An argument name of the reference codes.

    type: of its value, in words
    spec: the value of our option that it stands for; empty: its own value
    note: its source, and its choices
    """

    type: str
    spec: str = ""
    note: str = ""


NO_ALIASES: Final[Mapping[str, Alias]] = MappingProxyType({})


class Field(NamedTuple):
    """One option of a request and its documentation.

    type: of its value, in words
    default: the value of a request without it, in words
    meaning: the effect of the option
    aliases: other names for it, or for some of its values
    http: True if the `dlm` object of a request over HTTP may set it; the others have a field of
        OpenAI's there
    """

    type: str
    default: str
    meaning: str
    aliases: Mapping[str, Alias] = NO_ALIASES
    http: bool = True


RULES: Final[Mapping[str, Alias]] = MappingProxyType(
    {
        "threshold": Alias("number", "threshold(...)"),
        "factor": Alias("number", "factor(..., last_passes=True)"),
        "remasking": Alias("name", "topk(score=...)", "LLaDA's: low_confidence, random"),
        "confidence_eos_eot_inf": Alias("flag", "topk(demote='eos', renormalise=True)"),
        "alg": Alias(
            "name",
            "topk(score, 'eps', conf_from='tempered')",
            "Dream's, with whole blocks; or Fast-dLLM's confidence_threshold",
        ),
        "alg_temp": Alias("number", "topk(..., temperature=...)", "beside alg"),
        "eps": Alias("number", "topk(score, 'eps', eps=...)", "beside alg"),
        "remasking_strategy": Alias(
            "name",
            "dynamic",
            "SDAR's: low_confidence_dynamic, low_confidence_static, sequential",
        ),
        "denoising_steps": Alias("integer", "dynamic(block_steps=...)"),
        "confidence_threshold": Alias("number", "dynamic(threshold=...)"),
        "eb_threshold": Alias("number", "entropy_bound(...)", "SDAR's, refused as it fails there"),
    }
)
"""Names of the reference codes that choose a commit rule."""

FIELDS: Final[Mapping[str, Field]] = MappingProxyType(
    {
        "max_new_tokens": Field(
            "integer",
            "128, or as `infill`",
            "length of the masked canvas after the prompt",
            {"gen_length": Alias("integer")},
            http=False,
        ),
        "infill": Field(
            "template",
            "nothing",
            "the given parts of the answer: a text with holes `[[mask:24]]`, ids with None at open "
            "positions, or texts and ids by their offsets",
        ),
        "start": Field(
            "template",
            "nothing",
            "an earlier answer that the canvas begins with, of which doubtful tokens are decoded "
            "anew (`edit`, by default reconsider): a text, end ids after it; or ids, None where "
            "open",
        ),
        "steps": Field(
            "integer", "one token a step", "denoising steps for the whole answer (topk)"
        ),
        "blocks": Field(
            "part", "fixed", "where blocks end", {"block_length": Alias("integer", "fixed(...)")}
        ),
        "unmask": Field("part", "threshold(0.9)", "the positions that a step commits", RULES),
        "edit": Field(
            "parts",
            "none",
            "the tokens that a step revises",
            {
                "editing_threshold": Alias("number", "rewrite(...)", "LLaDA2.1's"),
                "max_post_steps": Alias(
                    "integer", "rewrite(post_steps=...)", "beside editing_threshold"
                ),
            },
        ),
        "guide": Field(
            "parts",
            "none",
            "changes to the logits before tokens are drawn",
            {
                "cfg_scale": Alias("number", "cfg(...)"),
                "logits_eos_inf": Alias("flag", "forbid('end_of_text')"),
            },
        ),
        "stop": Field(
            "parts, strings",
            "eos",
            "end rules, and strings that end the text",
            {"stopping_criteria_idx": Alias("ids", "eos('block', ...)")},
        ),
        "cache": Field(
            "part",
            "the exact one",
            "the keys that are reused",
            {"use_cache": Alias("flag", "prefix"), "dual_cache": Alias("flag", "dual")},
        ),
        "temperature": Field("number", "0", "0 takes the most likely token", http=False),
        "top_p": Field(
            "number",
            "1",
            "draw from the most likely ids whose probabilities add up to this; of no effect at "
            "temperature 0",
            http=False,
        ),
        "top_k": Field(
            "integer",
            "0 (off)",
            "draw from this many most likely ids; of no effect at temperature 0",
            http=False,
        ),
        "seed": Field("integer", "0", "same seed, same result", http=False),
        "n": Field(
            "integer", "1", "number of answers, each drawn with its own random numbers", http=False
        ),
        "logit_bias": Field("map", "none", "added to the logits of ids", http=False),
        "top_logprobs": Field(
            "integer",
            "0",
            "keep this many most likely ids of each commit, with their log-probabilities",
            http=False,
        ),
        "preset": Field(
            "name",
            "none",
            "parts that go well together: quality, fast, leap, adaptive, revise, anchored, edit, "
            "edit_fast, lossless, verified",
        ),
        "trace": Field("boolean", "false", "keep the events in the result"),
    }
)
"""Every option of `GenerationConfig`."""
