"""Contexts as the harness passes them on, and which of them a chat template has made.

The harness knows texts alone: it keeps what `apply_chat_template` gave in its store of prompts,
puts texts after it and hands it back, perhaps in another process. So a chat is stamped with its
length and its digest (but for spaces at its end, which tasks may strip), and in it the control
tokens that messages spell stay hidden. A text without a stamp is plain, whatever it begins with.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from dlm.errors import InvalidRequest

Hide = Callable[[str], str]
"""`Marker.hide`: makes a plain text ready to follow a chat."""

STAMP: Final = re.compile("\ue0f2([0-9]+) ([0-9a-f]{16})\ue0f3")


class Context(NamedTuple):
    """A context without its stamp; `chat`: `text` is what `Vocabulary.encode_marked` reads."""

    text: str
    chat: bool

    def stripped(self) -> Context:
        """Without the spaces at its end, unless it is nothing else."""
        return self._replace(text=self.text.rstrip()) if self.text.strip() else self

    def followed_by(self, more: str, hide: Hide) -> Context:
        """The chat with a plain text after it."""
        return self._replace(text=self.text + (hide(more) if self.chat else more))


def stamped(chat: str) -> str:
    """Stamp the output of `Text.render_marked` so that `read_context` recognises it."""
    known = chat.rstrip()
    return f"\ue0f2{len(known)} {_digest(known)}\ue0f3{chat}"


def read_context(context: str, hide: Hide) -> Context:
    """A context as the harness gives it, with the text that it has put after a chat.

    Raises `InvalidRequest` for a chat that was changed: nobody can tell its control tokens then.
    """
    found = STAMP.search(context)
    if found is None:
        return Context(context, chat=False)
    end = found.end() + int(found[1])
    chat = context[found.end() : end]
    if found.start() > 0 or _digest(chat) != found[2]:
        raise InvalidRequest(
            "context", "must begin with the chat as the template gave it, but the task changes it"
        )
    return Context(chat, chat=True).followed_by(context[end:], hide)


def _digest(chat: str) -> str:
    return hashlib.sha256(chat.encode()).hexdigest()[:16]
