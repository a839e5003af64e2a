"""Contexts as the harness passes them on, and which of them a chat template has made.

The harness knows texts alone: it keeps what `apply_chat_template` gave in its store of prompts,
puts texts behind it and hands it back, perhaps in another process. So a chat is stamped with its
length and its digest, and in it the control tokens that messages spell stay hidden. A text without
a valid stamp is plain, whatever it begins with.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Final, NamedTuple

Hide = Callable[[str], str]
"""`Text.hide`: what a plain text becomes behind a chat."""

STAMP: Final = re.compile("\ue0f2([0-9]+) ([0-9a-f]{16})\ue0f3")


class Context(NamedTuple):
    """A context without its stamp; `chat`: `text` is what `Text.encode_marked` reads."""

    text: str
    chat: bool

    def stripped(self) -> Context:
        """Without the spaces at its end, unless it is nothing else."""
        return self._replace(text=self.text.rstrip()) if self.text.strip() else self

    def followed_by(self, more: str, hide: Hide) -> Context:
        """With a plain text behind it."""
        return self._replace(text=self.text + (hide(more) if self.chat else more))


def stamped(chat: str) -> str:
    """What `Text.render_marked` gave, so that `read_context` knows it again."""
    return f"\ue0f2{len(chat)} {_digest(chat)}\ue0f3{chat}"


def read_context(context: str, hide: Hide) -> Context:
    """A context as the harness gives it, with what it has put behind a chat."""
    found = STAMP.match(context)
    if found is None:
        return Context(context, chat=False)
    begin, end = found.end(), found.end() + int(found[1])
    chat = context[begin:end]
    if len(chat) < int(found[1]) or _digest(chat) != found[2]:
        return Context(context, chat=False)
    return Context(chat, chat=True).followed_by(context[end:], hide)


def _digest(chat: str) -> str:
    return hashlib.sha256(chat.encode()).hexdigest()[:16]
