"""`ServerSettings`: all that a server is told besides its model, with the meaning of each setting.

Importing this module needs neither fastapi nor torch: the command line reads its table.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from dlm import GenerationConfig
from dlm.errors import InvalidRequest, listed, shown

LEVELS: Final = ("debug", "info", "warning", "error")
PER_REQUEST: Final = ("infill", "start", "n", "trace")
"""Options of generation that no server has a default for: each is of one request."""
KEY: Final = re.compile(r"[!-~]{1,512}")
"""An API key as a header carries it: visible ASCII."""
LONGEST_WAIT: Final = 86400
"""Seconds of a setting."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of a server. `SETTINGS` holds the meaning and the rule of each.

    Raises `InvalidRequest` naming the first setting that breaks its rule. The repr leaves the API
    keys out.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    insecure: bool = False
    model_id: str | None = None
    max_rows: int = 32
    max_waiting: int = 256
    max_body_bytes: int = 4 * 2**20
    max_canvas: int | None = None
    max_new_tokens: int = 128
    max_search_nfe: int = 4096
    keep_alive: float = 10.0
    drain: float = 30.0
    stall: float = 30.0
    max_step: float = 300.0
    allowed_origins: tuple[str, ...] = ()
    log_level: str = "info"
    log_prompts: bool = False
    page: bool = True
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every value; lists become tuples, and default options are named as the fields."""
        for name, setting in SETTINGS.items():
            setting.check(name, getattr(self, name))
        for name in ("api_keys", "allowed_origins"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        named = MappingProxyType(GenerationConfig.named(self.defaults))
        object.__setattr__(self, "defaults", named)

    @property
    def is_local(self) -> bool:
        """True if the server is bound to a loopback address."""
        return is_loopback(self.host)

    def require_guarded(self) -> None:
        """Raise `InvalidRequest` for a server that strangers can use: without a key, on an address
        that other machines reach or for every web page, unless `insecure` allows it.
        """
        if self.api_keys or self.insecure:
            return
        remedy = (
            "set the environment variable DLM_API_KEY or give --api-key-file, or allow everybody "
            "with --insecure"
        )
        if not self.is_local:
            raise InvalidRequest(
                "host",
                f"{shown(self.host)} can be reached from other machines, and there is no API key: "
                f"{remedy}, or bind 127.0.0.1",
            )
        if "*" in self.allowed_origins:
            raise InvalidRequest(
                "allowed_origins",
                f"'*' lets every web page use this server, and there is no API key: {remedy}, or "
                "list the origins",
            )


class Setting(NamedTuple):
    """One setting and its documentation.

    type: of its value, in words: integer, number, text, flag, texts or map
    meaning: the effect of the setting
    check: raises `InvalidRequest` for a name and a value that breaks its rule
    flag: its name on the command line, where that is not the field's
    """

    type: str
    meaning: str
    check: Callable[[str, Any], None]
    flag: str = ""


def is_loopback(host: str) -> bool:
    """Return True for an address that this machine alone can reach; other names than localhost may
    stand for any address.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def check_integer(
    name: str, value: Any, *, low: int, most: int | None = None, optional: bool = False
) -> None:
    """Raise `InvalidRequest` unless `value` is an integer in `low..most`."""
    if optional and value is None:
        return
    allowed = f"of at least {low}" if most is None else f"between {low} and {most}"
    plain = isinstance(value, int) and not isinstance(value, bool)
    if not plain or not low <= value <= (value if most is None else most):
        raise InvalidRequest(name, f"must be an integer {allowed}, got {shown(value)}")


def _seconds(name: str, value: Any, *, low: float) -> None:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not low <= value <= LONGEST_WAIT:
        raise InvalidRequest(
            name, f"must be seconds between {low:g} and {LONGEST_WAIT}, got {shown(value)}"
        )


def _flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InvalidRequest(name, f"must be true or false, got {shown(value)}")


def check_text(name: str, value: Any, *, optional: bool = False) -> None:
    """Raise `InvalidRequest` unless `value` is a text on one line."""
    if optional and value is None:
        return
    if not isinstance(value, str) or not value or not value.isprintable() or value != value.strip():
        raise InvalidRequest(name, f"must be a text on one line, got {shown(value)}")


def _level(name: str, value: Any) -> None:
    if value not in LEVELS:
        raise InvalidRequest(name, f"must be one of {listed(LEVELS)}, got {shown(value)}")


def _texts(name: str, value: Any, rule: str, is_right: Callable[[str], Any], *, hide: bool) -> None:
    if isinstance(value, str) or not isinstance(value, list | tuple):
        got = "" if hide else f", got {shown(value)}"
        raise InvalidRequest(name, f"must be a list of texts{got}")
    for number, item in enumerate(value, start=1):
        if not isinstance(item, str) or not is_right(item):
            got = f"number {number} is not" if hide else f"got {shown(item)}"
            raise InvalidRequest(name, f"{rule}; {got}")


def is_origin(text: str) -> bool:
    """Return True for an origin as browsers send it (`https://host:port`), and for `*`."""
    if text == "*":
        return True
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    host = parts.hostname or ""
    tail = "" if port is None else f":{port}"
    bare = f"[{host}]" if ":" in host else host
    return (
        parts.scheme in ("http", "https")
        and text == f"{parts.scheme}://{bare}{tail}"
        and bool(host)
    )


def _defaults(name: str, value: Any) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidRequest(name, f"must map options of generation to values, got {shown(value)}")
    named = GenerationConfig.named(value)
    for option in PER_REQUEST:
        if option in named:
            raise InvalidRequest(option, "is of one request: a server has no default for it")
    if "max_new_tokens" in named:
        raise InvalidRequest("max_new_tokens", f"is a setting of its own, outside of `{name}`")
    GenerationConfig.from_options(value)


SETTINGS: Final[Mapping[str, Setting]] = MappingProxyType(
    {
        "host": Setting("text", "address to listen on; 0.0.0.0 and :: are all of them", check_text),
        "port": Setting(
            "integer",
            "port to listen on; 0: any free one",
            partial(check_integer, low=0, most=65535),
        ),
        "api_keys": Setting(
            "texts",
            "a key that clients must send as a Bearer token; others on the machine can see it in "
            "the list of processes, but not DLM_API_KEY (keys with commas between them) nor what "
            "is in --api-key-file",
            partial(
                _texts,
                rule="must be 1 to 512 visible ASCII characters each",
                is_right=KEY.fullmatch,
                hide=True,
            ),
            "api-key",
        ),
        "insecure": Setting(
            "flag", "let everybody in who can reach the address, without an API key", _flag
        ),
        "model_id": Setting(
            "text",
            "name of the model in requests and answers (default: as it was loaded)",
            partial(check_text, optional=True),
        ),
        "max_rows": Setting(
            "integer", "answers decoded at once", partial(check_integer, low=1, most=65536)
        ),
        "max_waiting": Setting(
            "integer", "answers that wait beyond them; more get 429", partial(check_integer, low=0)
        ),
        "max_body_bytes": Setting(
            "integer", "bytes of a request's body; more get 413", partial(check_integer, low=1024)
        ),
        "max_canvas": Setting(
            "integer",
            "tokens of prompt and answer (default: as many as the model can have)",
            partial(check_integer, low=2, optional=True),
        ),
        "max_new_tokens": Setting(
            "integer",
            "length of the answer where a chat asks for none",
            partial(check_integer, low=1),
        ),
        "max_search_nfe": Setting(
            "integer", "forwards that one search may spend", partial(check_integer, low=1)
        ),
        "keep_alive": Setting(
            "number",
            "seconds without news after which a stream gets a comment",
            partial(_seconds, low=0.1),
        ),
        "drain": Setting(
            "number",
            "seconds that running requests have to end, once the server is asked to stop",
            partial(_seconds, low=0),
        ),
        "stall": Setting(
            "number",
            "seconds that a client may take for its headers, and between two parts of its body; "
            "then it gets 408 (0: no limit)",
            partial(_seconds, low=0),
        ),
        "max_step": Setting(
            "number",
            "seconds that a step of the engine may take: then it hangs, and the server ends with 1 "
            "(0: no limit)",
            partial(_seconds, low=0),
        ),
        "allowed_origins": Setting(
            "texts",
            "web page that may call from a browser, as https://host:port; * is every one",
            partial(
                _texts,
                rule="must be origins (scheme://host:port) or '*'",
                is_right=is_origin,
                hide=False,
            ),
        ),
        "log_level": Setting("text", f"one of {', '.join(LEVELS)}", _level),
        "log_prompts": Setting("flag", "log the texts of prompts and answers as well", _flag),
        "page": Setting("flag", "serve the live page at /", _flag),
        "defaults": Setting(
            "map", "options of generation for requests that do not set them", _defaults
        ),
    }
)
"""Every field of `ServerSettings`."""
