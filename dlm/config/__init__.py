"""The options of a user: the generation config, spec strings, and rules about combinations.

The table and the spec strings need no torch; what binds parts to a model is imported on use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dlm.config.generation import GenerationConfig
from dlm.config.options import FIELDS, Field
from dlm.config.presets import PRESETS, Preset
from dlm.config.spec_strings import KINDS, parse_part, registry_of
from dlm.config.stopping import StopString

if TYPE_CHECKING:
    from dlm.config.binding import BoundConfig, bind

__all__ = [
    "FIELDS",
    "KINDS",
    "PRESETS",
    "BoundConfig",
    "Field",
    "GenerationConfig",
    "Preset",
    "StopString",
    "bind",
    "parse_part",
    "registry_of",
]


def __getattr__(name: str) -> Any:
    """Import `bind` and `BoundConfig`, which know the engine's types."""
    if name not in ("BoundConfig", "bind"):
        raise AttributeError(f"module 'dlm.config' has no attribute {name!r}")
    return getattr(import_module("dlm.config.binding"), name)
