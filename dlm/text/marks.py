"""Marks that keep a user's spelling apart from the writing of a chat template.

A template's control tokens must be read as such and those in the messages must not, yet both stand
in one text. So in the messages the first character of each is written in private characters before
the template is rendered: no token is spelled there any more, and afterwards it can be read again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

BEGIN, END = "\ue0f0", "\ue0f1"
DIGITS: Final = "".join(map(chr, range(0xE0E0, 0xE0F0)))
MARK: Final = re.compile(f"{BEGIN}([{DIGITS}]+){END}")


class Marker:
    """Hides `tokens` in texts."""

    def __init__(self, tokens: Iterable[str]) -> None:
        known = [token for token in tokens if token]
        longest_first = sorted(known, key=len, reverse=True)
        self.spelled = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._beginnings = {token[:n] for token in known for n in range(1, len(token))}
        self._endings = {token[n:] for token in known for n in range(1, len(token))}
        self._longest = max(map(len, known), default=1) - 1

    def hide(self, text: str) -> str:
        """`text` in which no token is spelled, nor part of one at its ends, where a template goes
        on. Whitespace at the ends does not count: templates strip it.
        """
        text = text.replace(BEGIN, _mark(BEGIN))
        while self.spelled.search(text):
            text = self.spelled.sub(lambda match: _mark(match[0][0]) + match[0][1:], text)
        for at in sorted(self._open_ends(text), reverse=True):  # the places before it stay
            text = text[:at] + _mark(text[at]) + text[at + 1 :]
        return text

    def _open_ends(self, text: str) -> set[int]:
        """The place in `text` of a token that its end cuts off, and its start if it ends one."""
        start, end = len(text) - len(text.lstrip()), len(text.rstrip())
        sizes = range(1, min(self._longest, end - start) + 1)
        places = {end - size for size in sizes if text[end - size : end] in self._beginnings}
        if any(text[start : start + size] in self._endings for size in sizes):
            places.add(start)
        return places


def show(text: str) -> str:
    """A text with hidden tokens as it was."""
    return MARK.sub(lambda match: _unmarked(match[1]), text)


def _mark(character: str) -> str:
    digits = "".join(DIGITS[int(digit, 16)] for digit in f"{ord(character):x}")
    return f"{BEGIN}{digits}{END}"


def _unmarked(digits: str) -> str:
    return chr(int("".join(f"{DIGITS.index(digit):x}" for digit in digits), 16))
