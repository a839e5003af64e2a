"""The server: OpenAI's HTTP API over one engine, and what only a diffusion model can show.

`create_app` gives an ASGI app for an engine, `run` serves it. They need the packages of the extra
`serve`, and are imported when they are first used: the command line reads the table of settings
without.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dlm.serve.app import create_app
    from dlm.serve.server import run
    from dlm.serve.settings import ServerSettings

__all__ = ["ServerSettings", "create_app", "run"]

_HOMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ServerSettings": "dlm.serve.settings",
        "create_app": "dlm.serve.app",
        "run": "dlm.serve.server",
    }
)


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dlm.serve' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
