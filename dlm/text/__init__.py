"""Text to ids and back: tokenizer, chat template, stop strings, incremental detokenizer."""

from dlm.text.holes import parse_holes
from dlm.text.loading import no_tokenizer
from dlm.text.matching import MISSING, id_map
from dlm.text.stream import IncrementalDecoder, StopMatcher
from dlm.text.text import Text, load_text

__all__ = [
    "MISSING",
    "IncrementalDecoder",
    "StopMatcher",
    "Text",
    "id_map",
    "load_text",
    "no_tokenizer",
    "parse_holes",
]
