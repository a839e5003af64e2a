"""Identity of a run: everything that decides its answers. A folder holds answers of one only.

Own rules count by their source: the module of a class, and whatever of the user's it imports.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any, Final

import dlm
from dlm.evals.settings import Setting

HOME: Final = Path(dlm.__file__).parent
DECIDES_NOTHING: Final = frozenset({"cli", "serve", "evals"})
"""Rooms of `dlm` on which answers do not depend; questions are in the items' digests."""
PACKAGES: Final = ("torch", "transformers", "sentencepiece", "numpy")
"""Packages that decoding computes with."""
INSTALLED: Final = frozenset({"site-packages", "dist-packages"})
SHOWN: Final = 4
"""Differences that a message lists; of more it gives the number."""


def code_identity() -> dict[str, Any]:
    """The sources of `dlm` that answers depend on, and the versions of the packages they use."""
    files = [
        path
        for path in sorted(HOME.rglob("*.py"))
        if path.relative_to(HOME).parts[0] not in DECIDES_NOTHING
    ]
    return {"sources": files_digest(files, HOME), **{name: version_of(name) for name in PACKAGES}}


def files_digest(files: Iterable[Path], root: Path, more: str = "") -> str:
    """The sha256 of files with their names below `root`; docstrings do not count."""
    sha = hashlib.sha256(more.encode())
    for path in files:
        content = code_of(path)
        sha.update(f"\0{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        sha.update(content)
    return sha.hexdigest()


def code_of(path: Path) -> bytes:
    """The content of a file; of a Python source, without its docstrings, which decide nothing.

    A docstring and the empty line after it are left out if it has its lines to itself.
    """
    content = path.read_bytes()
    return _without_docstrings(content) if path.suffix == ".py" else content


@lru_cache(maxsize=1024)  # a run looks at the same sources several times
def _without_docstrings(content: bytes) -> bytes:
    """A Python source without its docstrings; one that cannot be parsed as it is."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return content
    lines: list[bytes] = content.splitlines(keepends=True)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            first, last = node.lineno - 1, node.end_lineno or node.lineno
            before, after = lines[first][: node.col_offset], lines[last - 1][node.end_col_offset :]
            if isinstance(node.value.value, str) and not (before.strip() or after.strip()):
                last += last < len(lines) and not lines[last].strip()
                lines[first:last] = [b""] * (last - first)
    return b"".join(lines)


def version_of(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def rules_identity(settings: Iterable[Setting]) -> dict[str, Any]:
    """The rules of settings that are not of `dlm`: module -> the digest of its source and of the
    user's modules that it imports, and the versions of the packages among its imports.

    A source that cannot be read has no digest: a run with it does not go on.
    """
    modules = dict.fromkeys(name for s in settings for name in _modules(s.options))
    return {name: _sources(name) for name in modules}


def _modules(options: Mapping[str, Any]) -> Iterator[str]:
    """The modules of a setting's own parts."""
    config = dlm.GenerationConfig.from_options(options)
    texts = config.stop_strings()
    for kind, registry in dlm.KINDS.items():
        given = getattr(config, kind)
        for part in given if isinstance(given, list | tuple) else (given,):
            if not isinstance(part, str):
                yield from _owners(part)
                continue
            name = part.partition("(")[0].strip()
            if ":" in name and not any(part is text for text in texts):
                yield name.partition(":")[0].strip()
                yield registry.load_path(name).__module__
            elif name not in registry.entries and name in registry:
                yield registry.load(name).__module__


def _owners(value: Any) -> Iterator[str]:
    """The modules of an object, of what its fields hold, and of the functions among that."""
    module = (value if isinstance(value, type | FunctionType) else type(value)).__module__
    if module.partition(".")[0] not in sys.stdlib_module_names | {"dlm"}:
        yield module
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _owners(getattr(value, field.name))
    elif isinstance(value, Mapping):
        yield from _owners(list(value.values()))
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from _owners(inner)


def _sources(module: str) -> dict[str, Any]:
    """The digest of a module with the modules it imports, as far as they are its author's, and the
    versions of the other packages.
    """
    own, todo = module.partition(".")[0], [module]
    files: dict[str, Path] = {}
    packages: set[str] = set()
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        top = name.partition(".")[0]
        if name in seen or top in sys.stdlib_module_names | {"dlm"}:
            continue
        seen.add(name)
        if top != own and _is_installed(top):
            packages.add(top)
            continue
        todo += [name.rpartition(".")[0]] if "." in name else []
        if (path := _file_of(name)) is not None:
            files[name] = path
            todo += _imported(name, path)
    known = packages_distributions() if packages else {}
    versions = {p: version_of(known.get(p, [p])[0]) for p in sorted(packages)}
    sha = hashlib.sha256()
    for name, path in sorted(files.items()):
        sha.update(f"\0{name}\0".encode() + code_of(path))
    return {"sources": sha.hexdigest() if module in files else None, "packages": versions}


def _is_installed(top: str) -> bool:
    """True if a package was installed, so that its version identifies it."""
    spec = _spec_of(top)
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    return any(INSTALLED & set(Path(place).parts) for place in places if place)


def _file_of(name: str) -> Path | None:
    """The source of a module; None if there is none, as of names that are no modules."""
    place = getattr(sys.modules.get(name), "__file__", None)
    if place is None and (spec := _spec_of(name)) is not None:
        place = spec.origin
    path = None if place is None else Path(place)
    return path if path is not None and path.suffix == ".py" and path.is_file() else None


def _spec_of(name: str) -> ModuleSpec | None:
    """Find a module's spec; the package around it is imported, as loading the rule does too."""
    try:
        return find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None


def _imported(module: str, path: Path) -> list[str]:
    """The names that a source imports anywhere, as modules or as what may be one in a package."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else ()), *filter(None, [node.module])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [name for name in names if name]


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], between: str = ", now "
) -> list[tuple[str, str]]:
    """List the differences of two identities: (name, "name.of.field: one, now other"), in order.

    A source without a digest is not known to be the same.
    """
    found = _apart(before, now)
    return [
        (path.partition(".")[0], f"{path}: {_short(one)}{between}{_short(other)}")
        for path, one, other in found
    ]


def _apart(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The fields that differ, by their dotted names; of nested mappings those that both have."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            inner = f"{path}.{key}" if path else str(key)
            yield from _apart(before.get(key), now.get(key), inner)
    elif before != now or (now is None and path.endswith(".sources")):
        yield path, before, now


def in_words(found: Sequence[tuple[str, str]]) -> str:
    """Differences in words, the first few of them."""
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(text for _, text in found[:SHOWN]) + more


def _short(value: Any) -> str:
    """A value for a message; the beginning of a digest is enough."""
    text = "nothing" if value is None else value if isinstance(value, str) else repr(value)
    digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:8] if digest else text if len(text) <= 60 else f"{text[:57]}..."
