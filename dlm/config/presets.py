"""Presets: parts that go well together, by the kind of model and the use.

A preset fills in the parts that a request leaves open; options given beside it win.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from dlm.config.generation import GenerationConfig
from dlm.errors import InvalidRequest, unknown_name

if TYPE_CHECKING:
    from dlm.core import ModelInfo

Options = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Preset:
    """Spec strings of parts for each kind of model; None if the preset does not apply.

    use: the purpose
    full: bidirectional models (LLaDA)
    shifted: those made of autoregressive ones, whose row i predicts position i + 1 (Dream)
    block_causal: SDAR, LLaDA2
    source: of its numbers
    evidence: result on the dev split of the bundled tasks (n = 200 each), beside one token a step
    families: a family that differs from its kind, by `model_type`
    unshifted: no model has it whose rows predict the next position
    """

    use: str
    full: Options | None
    shifted: Options | None
    block_causal: Options | None
    source: str
    evidence: str = "not measured"
    families: tuple[tuple[str, Options], ...] = ()
    unshifted: bool = False

    def options(self, info: ModelInfo) -> Options | None:
        """The parts for a model."""
        if self.unshifted and info.shift:
            return None
        if own := dict(self.families).get(info.family):
            return own
        if info.attention == "block_causal":
            return self.block_causal
        return self.shifted if info.shift else self.full


LLADA2: Final = "llada2_moe"
_DREAM: Final = "topk('entropy', 'eps', conf_from='tempered')"
_DUAL: Final[Options] = MappingProxyType({"blocks": "fixed(32)", "cache": "dual"})
_STORED: Final[Options] = MappingProxyType({"blocks": "fixed", "cache": "block_causal"})

PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {
        "quality": Preset(
            use="one token a step and no reused keys that could be stale: slow",
            full={"unmask": "topk", "blocks": "fixed(32)", "cache": "none"},
            shifted={"unmask": _DREAM, "blocks": "whole", "cache": "none"},
            block_causal={"unmask": "dynamic(1.0)", **_STORED},
            source="the rules of LLaDA's, Dream's and SDAR's own evaluations",
            evidence="the reference",
        ),
        "fast": Preset(
            use="all that is sure at once, keys outside the block reused",
            full={"unmask": "threshold(0.9)", **_DUAL},
            shifted={"unmask": "threshold(0.9)", **_DUAL},
            block_causal={"unmask": "dynamic(0.9)", **_STORED},
            families=((LLADA2, {"unmask": "dynamic(0.95)", **_STORED}),),
            source="Fast-dLLM (arXiv 2505.22618); SDAR (arXiv 2510.06303; LLaDA2: 0.95)",
            evidence="math -1.5, code -5.0, sudoku -2.0 points at 6, 4, 6% of its forwards",
        ),
        "leap": Preset(
            use="as fast, and bolder beside sure tokens",
            full={"unmask": "leap(0.9, 0.75, 4)", **_DUAL},
            shifted={"unmask": "leap(0.9, 0.75, 4)", **_DUAL},
            block_causal={"unmask": "leap(0.9, 0.75, 4)", **_STORED},
            source="LocalLeap (arXiv 2510.07081)",
            evidence="math -6.0, code -6.0, sudoku -6.5 points at 6, 4, 5% of its forwards",
        ),
        "adaptive": Preset(
            use="as fast, with blocks that end where a line ends",
            full={"unmask": "threshold(0.9)", "blocks": "adaptive", "cache": "dual"},
            shifted={
                "unmask": "threshold(0.9)",
                "blocks": "adaptive(threshold=0.5)",
                "cache": "dual",
            },
            block_causal=None,
            source="AdaBlock-dLLM (arXiv 2509.26432)",
            evidence="math +2.0, code -2.5, sudoku +0.5 points at 10, 6, 18% of its forwards",
        ),
        "revise": Preset(
            use="a given number of `steps`, each of which may take earlier tokens back",
            full={"unmask": "everything", "edit": "rcr", "blocks": "whole", "cache": "none"},
            shifted={"unmask": "everything", "edit": "rcr", "blocks": "whole", "cache": "none"},
            block_causal=None,
            source="MDPO (arXiv 2508.13148)",
        ),
        "anchored": Preset(
            use="as revise, but each step ranks all tokens by what the model thinks of them now",
            full={"unmask": "everything", "edit": "anchored", "blocks": "whole", "cache": "none"},
            shifted={
                "unmask": "everything",
                "edit": "anchored",
                "blocks": "whole",
                "cache": "none",
            },
            block_causal={"unmask": "everything", "edit": "anchored(scope='block')", **_STORED},
            source="P2 (arXiv 2502.03540) and APS (arXiv 2510.02291)",
        ),
        "edit": Preset(
            use="bold commits, and tokens of the block are overwritten: for models trained to edit",
            full=None,
            shifted=None,
            block_causal={"unmask": "dynamic(0.7)", "edit": "rewrite(0.5)", **_STORED},
            source="LLaDA2.1's quality mode (arXiv 2602.08676)",
        ),
        "edit_fast": Preset(
            use="bolder still: any other token overwrites",
            full=None,
            shifted=None,
            block_causal={"unmask": "dynamic(0.5)", "edit": "rewrite(0.0)", **_STORED},
            source="LLaDA2.1's speed mode (arXiv 2602.08676)",
        ),
        "lossless": Preset(
            use="the tokens of one a step, in fewer forwards that compute more positions",
            full={"unmask": "freedave", **_DUAL},
            shifted=None,
            block_causal={"unmask": "freedave", **_STORED},
            source="FreeDave (arXiv 2510.00294)",
            unshifted=True,
        ),
        "verified": Preset(
            use="drafts that the model reads again from left to right",
            full=None,
            shifted=None,
            block_causal={"unmask": "verified", **_STORED},
            source="S2D2 (arXiv 2603.25702)",
            unshifted=True,
        ),
    }
)
"""The presets by name."""


def with_preset(config: GenerationConfig, info: ModelInfo) -> GenerationConfig:
    """The config with its preset's parts where it has none of its own.

    Raises `InvalidRequest` for an unknown name, and for a preset that the model cannot have.
    """
    name = config.preset
    if name is None:
        return config
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    options = PRESETS[name].options(info)
    if options is None:
        known = [other for other, preset in PRESETS.items() if preset.options(info) is not None]
        why = _why_not(PRESETS[name], info)
        raise InvalidRequest("preset", f"{name!r} {why}: use {', '.join(map(repr, known))}")
    missing: dict[str, Any] = {k: v for k, v in options.items() if getattr(config, k) is None}
    return replace(config, **missing)


def _why_not(preset: Preset, info: ModelInfo) -> str:
    """Why a model cannot have a preset."""
    if preset.unshifted and info.shift:
        return "judges tokens at their own positions; rows of this model predict the next ones"
    if info.attention == "block_causal":
        return (
            "changes ends of blocks or tokens of earlier ones; this model has trained blocks of "
            f"{info.block_length}"
        )
    return "is for models with trained blocks (SDAR, LLaDA2), and this one has none"
