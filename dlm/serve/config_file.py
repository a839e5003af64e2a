"""Settings from a YAML file, API keys from a file, and API keys from the environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import yaml

from dlm.errors import InvalidRequest, listed, nearest, shortened, shown
from dlm.serve.settings import SETTINGS, check_integer, check_text

LONGEST: Final = 2**20
"""Bytes of a file; more is no configuration."""
SINGULAR: Final[Mapping[str, str]] = MappingProxyType(
    {setting.flag.replace("-", "_"): name for name, setting in SETTINGS.items() if setting.flag}
)
"""Names of flags that may be repeated, and the setting that each adds to."""


def _check_map(name: str, value: Any) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidRequest(name, f"must map names to values, got {shown(value)}")


LOADING: Final[Mapping[str, Callable[[str, Any], None]]] = MappingProxyType(
    {
        "model": check_text,
        "device": check_text,
        "dtype": check_text,
        "mask_id": partial(check_integer, low=0),
        "override": _check_map,
        "aux": _check_map,
        "api_key_file": check_text,
    }
)
"""Further keys of the file, and the check of each: the options that load a model."""


class _UniqueKeys(yaml.SafeLoader):  # type: ignore[misc]  # it has no types
    """The safe loader, which takes the last of equal keys: here they are an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping. Raises `yaml.YAMLError` for a key that it holds twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"the key {shown(key.value)} is given twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def read_config(path: Path) -> dict[str, Any]:
    """The settings and loading options of a YAML file, by the names of `SETTINGS` and `LOADING`.

    Keys are spelled with dashes or underscores. Raises `InvalidRequest` naming the file and the
    key: for an unknown one with the nearest name, for a value that breaks the rule of its setting.
    """
    document = _parsed(path)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InvalidRequest("config", f"{path} must map names to values, got {shown(document)}")
    found: dict[str, Any] = {}
    for key, value in document.items():
        name = _known(path, key)
        if name in found:
            raise InvalidRequest("config", f"{path} sets {name!r} twice")
        found[name] = _checked(path, name, value)
    return found


def _parsed(path: Path) -> Any:
    text = _text_of("config", path)
    try:
        return yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f", line {mark.line + 1}"
        problem = getattr(error, "problem", None) or str(error)
        raise InvalidRequest("config", f"{path}{place}: {shortened(problem, 160)}") from None
    except (RecursionError, ValueError) as error:  # nested beyond all measure; an impossible date
        problem = shortened(str(error), 160)
        raise InvalidRequest("config", f"{path} cannot be read: {problem}") from None


def _known(path: Path, key: Any) -> str:
    """The name that a key of the file stands for."""
    name = str(key).replace("-", "_")
    name = SINGULAR.get(name, name)
    choices = [*SETTINGS, *LOADING]
    if name in choices:
        return name
    from dlm import FIELDS

    hint = "belongs under `defaults`" if name in FIELDS else f"is none of {listed(choices)}"
    near = nearest(name, choices)
    meant = f"; did you mean {near!r}?" if near and name not in FIELDS else ""
    raise InvalidRequest("config", f"{path}: {shown(key)} {hint}{meant}")


def _checked(path: Path, name: str, value: Any) -> Any:
    """The value of a setting as `ServerSettings` takes it."""
    if name in SINGULAR.values() and isinstance(value, str):
        value = [value]
    try:
        (SETTINGS[name].check if name in SETTINGS else LOADING[name])(name, value)
    except InvalidRequest as error:
        raise InvalidRequest(error.param, f"{error.message} (in {path})") from None
    return value


def read_keys(path: Path) -> tuple[str, ...]:
    """The API keys of a file, one a line; empty lines and those that begin with # are left out.

    Raises `InvalidRequest` for a file without one, and shows none of them.
    """
    lines = [line.strip() for line in _text_of("api_key_file", path).splitlines()]
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise InvalidRequest("api_key_file", f"{path} holds no key")
    SETTINGS["api_keys"].check("api_key_file", keys)
    return keys


def keys_of_environment(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The API keys in `DLM_API_KEY`, with commas between them; none if it is unset or empty."""
    keys = tuple(filter(None, map(str.strip, environment.get("DLM_API_KEY", "").split(","))))
    SETTINGS["api_keys"].check("DLM_API_KEY", keys)
    return keys


def _text_of(param: str, path: Path) -> str:
    """The text of a file. Raises `InvalidRequest` for one that cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST + 1)
        if len(data) > LONGEST:
            raise InvalidRequest(param, f"{path} has more than {LONGEST} bytes")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRequest(param, f"{path} must be UTF-8 text") from None
    except OSError as error:
        raise InvalidRequest(param, f"{path} cannot be read: {error.strerror}") from None
