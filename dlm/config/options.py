"""The table of generation options."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple


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
            "threshold, factor, remasking, alg, alg_temp, eps, confidence_eos_eot_inf, "
            "remasking_strategy, denoising_steps, confidence_threshold",
            True,
            "what a step commits",
        ),
        "edit": Field("parts", "none", "editing_threshold", True, "what a step revises"),
        "guide": Field(
            "parts", "none", "cfg_scale, logits_eos_inf", True, "operations on the logits"
        ),
        "stop": Field(
            "parts, strings",
            "eos",
            "stopping_criteria_idx",
            True,
            "end rules, and strings that end the text",
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
