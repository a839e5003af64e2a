"""Files that arguments of the command line name."""

from __future__ import annotations

from pathlib import Path

from dlm.errors import InvalidRequest


def read_text(param: str, path: Path) -> str:
    """The text of a file. Raises `InvalidRequest` naming `param` for one that cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(param, f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(param, f"{path} is no UTF-8 text: {error.reason}") from error
