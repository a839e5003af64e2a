"""What a user may say: the generation config, spec strings, and the rules about combinations."""

from dlm.config.binding import BoundConfig, bind
from dlm.config.fields import FIELDS, Field
from dlm.config.generation import GenerationConfig
from dlm.config.spec import KINDS, parse_part, registry_of

__all__ = [
    "FIELDS",
    "KINDS",
    "BoundConfig",
    "Field",
    "GenerationConfig",
    "bind",
    "parse_part",
    "registry_of",
]
