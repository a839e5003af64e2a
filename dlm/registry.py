"""Names to classes: the name of a part for users, and the place of its code.

A registry holds strings only; a class is imported when it is asked for, so that listing the names
costs nothing. Packages of other people add names through entry points; user code is given by path.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType

from dlm.errors import InvalidRequest, unknown_name


@dataclass(frozen=True, slots=True, eq=False)
class Registry:
    """The known names of one `kind` of part, and the class of each.

    `entries` maps a name to "package.module:Class" (copied, read-only). Names missing there are
    looked up among the installed entry points of `group`, as "kind.name" or else plain "name"; a
    built-in name is never shadowed. Errors are `InvalidRequest` with `kind` as the parameter.
    """

    kind: str
    entries: Mapping[str, str] = field(repr=False)
    group: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", MappingProxyType(dict(self.entries)))

    def names(self) -> tuple[str, ...]:
        """All names that `load` accepts: the built-in ones as declared, then those of plug-ins."""
        plugins = {name for name, _ in self._plugins()}
        return (*self.entries, *sorted(plugins - self.entries.keys()))

    def __contains__(self, name: str) -> bool:
        """True if `load` accepts the name; entry points of installed packages are read only if it
        is no built-in name.
        """
        return name in self.entries or any(known == name for known, _ in self._plugins())

    def load(self, name: str) -> type:
        """The class called `name`.

        Raises `InvalidRequest` when the name is unknown (listing the known ones), when two
        installed packages claim it, or when the package it needs is not installed.
        """
        if (path := self.entries.get(name)) is None:
            path = self._plugin_path(name)
        return self._load(path, f"{name!r} ")

    def load_path(self, path: str) -> type:
        """The class at `path`, "pkg.mod:Class", for code that has no registered name.

        Raises `InvalidRequest` for a malformed path, a module that is missing or fails to import,
        and for an attribute that is missing or no class.
        """
        return self._load(path, "")

    def _plugins(self) -> Iterator[tuple[str, EntryPoint]]:
        """Plug-in names of this kind: "kind.name" first, then plain ones; other kinds left out."""
        if self.group is None:
            return
        found = _installed(self.group, tuple(sys.path))
        for entry in found:
            if entry.name.startswith(f"{self.kind}."):
                yield entry.name.removeprefix(f"{self.kind}."), entry
        for entry in found:
            if "." not in entry.name:
                yield entry.name, entry

    def _plugin_path(self, name: str) -> str:
        matches = [entry for known, entry in self._plugins() if known == name]
        if not matches:
            raise unknown_name(self.kind, name, self.names())
        paths = {entry.value for entry in matches if entry.name == matches[0].name}
        if len(paths) > 1:
            raise InvalidRequest(
                self.kind,
                f"{name!r} is claimed by several installed packages: {', '.join(sorted(paths))}",
            )
        return matches[0].value

    def _load(self, path: str, subject: str) -> type:
        """Import the class at `path`; error messages start with `subject`."""
        module_name, colon, qualname = path.replace(" ", "").partition(":")
        if not (colon and _is_dotted(module_name) and _is_dotted(qualname)):
            raise InvalidRequest(self.kind, f'{subject}must be "pkg.mod:Class", got {path!r}')
        try:
            found: object = import_module(module_name)
        except ModuleNotFoundError as error:
            missing = error.name or module_name
            if f"{module_name}.".startswith(f"{missing}."):
                text = f"found no module {module_name!r} for {path!r}, {_searched()}"
            else:
                text = f"needs the package {missing!r}, which is not installed"
            raise InvalidRequest(self.kind, f"{subject}{text}") from error
        except (Exception, SystemExit) as error:  # a module may end the process
            text = f"importing {module_name!r} failed with {type(error).__name__}: {error}"
            raise InvalidRequest(self.kind, f"{subject}{text}") from error
        for attribute in qualname.split("."):
            if not hasattr(found, attribute):
                classes = [name for name, value in vars(found).items() if isinstance(value, type)]
                near = unknown_name(self.kind, attribute, classes).message
                raise InvalidRequest(self.kind, f"{subject}class in {module_name!r} {near}")
            found = getattr(found, attribute)
        if not isinstance(found, type):
            text = f"must name a class, got {type(found).__name__} {path!r}"
            raise InvalidRequest(self.kind, f"{subject}{text}")
        return found


@functools.lru_cache(maxsize=16)
def _installed(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """The entry points of a group that `path` (`sys.path`) leads to, read once: that takes
    milliseconds, and every request asks for names.
    """
    return tuple(entry_points(group=group))


def _searched() -> str:
    """The places in which modules are looked for, in words."""
    here = str(Path.cwd())
    if {"", here} & set(sys.path):
        return f"neither in the current folder {here} nor among the installed packages"
    return f"neither installed nor in a folder of sys.path, which lacks the current one, {here}"


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))
