"""Text to ids and back: tokenizer, chat template, stop strings, incremental detokenizer."""

from dlm.text.stream import IncrementalDecoder, StopMatcher
from dlm.text.text import Text, load_text

__all__ = ["IncrementalDecoder", "StopMatcher", "Text", "load_text"]
