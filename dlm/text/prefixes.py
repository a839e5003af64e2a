"""Prefixes that tokenizers put before a text, and copies of tokenizers without them.

Sentencepiece and its heirs begin a text with a space of their own. That is right where a text
begins, and wrong for a piece that goes on with another.
"""

from __future__ import annotations

import copy
import json
from typing import Any

State = dict[str, Any]
"""A normalizer or a pre-tokenizer, as the `tokenizers` library writes it."""


def without_prefixes(tokenizer: Any) -> Any | None:
    """A copy that puts nothing before a text; None if the tokenizer never does, or has no
    backend of the `tokenizers` library.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    states = _state(backend.normalizer), _state(backend.pre_tokenizer)
    bare = _bare(states[0]), _bare(states[1])
    if bare == states:
        return None
    found = copy.deepcopy(tokenizer)
    built = _built(*bare)
    for name in ("normalizer", "pre_tokenizer"):
        setattr(found.backend_tokenizer, name, getattr(built, name))
    return found


def only_at_the_start(tokenizer: Any) -> bool:
    """True if a prefix is put before a whole text alone, not before each text between tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = None if backend is None else _state(backend.pre_tokenizer)
    return any(part.get("prepend_scheme") == "first" for part in _parts(state))


def _state(component: Any) -> State | None:
    if component is None:
        return None
    state: State = json.loads(component.__getstate__())
    return state


def _parts(state: State | None) -> list[State]:
    """A component, or the components of a sequence."""
    if state is None:
        return []
    nested = [value for name in ("pretokenizers", "normalizers") for value in state.get(name, ())]
    return [part for each in nested for part in _parts(each)] if nested else [state]


def _bare(state: State | None) -> State | None:
    """The component without the part that precedes a text, None if nothing is left of it."""
    if state is None or state["type"] == "Prepend":
        return None
    bare = dict(state)
    for name in ("pretokenizers", "normalizers"):
        if name in state:
            bare[name] = [part for part in map(_bare, state[name]) if part is not None]
    if state["type"] == "Metaspace":
        bare["prepend_scheme"] = "never"
    if state["type"] == "ByteLevel" and "add_prefix_space" in state:
        bare["add_prefix_space"] = False
    return bare


def _built(normalizer: State | None, pre_tokenizer: State | None) -> Any:
    """A backend without a vocabulary that holds these two components."""
    from tokenizers import Tokenizer

    model = {"type": "BPE", "vocab": {}, "merges": []}
    parts = {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "model": model}
    empty = {"truncation": None, "padding": None, "post_processor": None, "decoder": None}
    return Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], **empty, **parts}))
