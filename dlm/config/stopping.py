"""Of the strings in `stop`: which are rules, which are texts, and which are misspelled rules."""

from __future__ import annotations

import re
from typing import Final

from dlm.config.spec_strings import registry_of
from dlm.errors import InvalidRequest, nearest, shown

NONE: Final = "none"
"""In place of a rule: no rule."""
SHORT: Final = 4
"""Names of this many letters resemble too many words; only a slip of the finger counts."""
ALIKE: Final = 0.8
"""A word resembles a name from here on (`difflib`'s ratio)."""
_CALL: Final = re.compile(r"(\w+)\(.*\)|[\w.]+:[A-Za-z_]\w*(\(.*\))?", re.DOTALL)
_BEGUN: Final = re.compile(r"([\w-]+)\s*[(\[{=]")
_WORD: Final = re.compile(r"[\w-]+")


class StopString(str):
    """A string that ends the text, also where it spells the name of a stop rule."""

    __slots__ = ()


def is_rule(item: str) -> bool:
    """True if a `stop` string is a rule: a known name, `name(...)`, or `pkg.mod:Class`.

    Raises `InvalidRequest` for one that is no rule but begins or reads like one: a misspelled rule
    would end the answer nowhere, without a word.
    """
    if isinstance(item, StopString):
        return False
    spec, names = item.strip(), (*registry_of("stop").names(), NONE)
    if _CALL.fullmatch(spec) or spec in names:
        return True
    begun, word = _BEGUN.match(spec), _WORD.fullmatch(spec)
    meant = likely_name(begun[1] if begun else spec, names) if begun or word else None
    if meant is None:
        return False
    form = f"{meant}(...)" if begun else meant
    message = f"{shown(item)} is no rule; did you mean '{form}'? {as_text(item)}"
    raise InvalidRequest("stop", message)


def as_text(item: str) -> str:
    """The advice for a string that is meant literally."""
    return f"(To end at the text itself: StopString({shown(item, 40)}), or --stop-string.)"


def likely_name(word: str, names: tuple[str, ...]) -> str | None:
    """The name that a word means, a typing error or two aside; None if it means none."""
    plain = word.casefold().replace("-", "_")
    for name in names:
        if plain == name or plain.replace("_", "") == name.replace("_", ""):
            return name
        if len(name) <= SHORT and _slipped(plain, name):
            return name
    return nearest(plain, (name for name in names if len(name) > SHORT), ALIKE)


def _slipped(word: str, name: str) -> bool:
    """True if one letter too many, or two in the wrong order, make the name this word."""
    if sorted(word) == sorted(name):
        return sum(a != b for a, b in zip(word, name, strict=True)) == 2
    doubled = (word[:at] + word[at + 1 :] == name for at in range(len(word)))
    return len(word) == len(name) + 1 and any(doubled)
