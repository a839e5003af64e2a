"""Output of `dlm info`: the installation and its parts, or one model."""

from __future__ import annotations

import dataclasses
import inspect
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from inspect import cleandoc
from types import MappingProxyType
from typing import Any, Final

import dlm
from dlm.cli.output import show_json
from dlm.errors import InvalidRequest, unknown_name

ELEMENT_SIZES: Final[Mapping[str, int]] = MappingProxyType({"bfloat16": 2, "float32": 4})


def parts() -> list[dict[str, str]]:
    """Every registered part, described by strings.

    The entries: kind, name, arguments with their defaults, what the part does, papers (arXiv ids)
    and tier of truth.
    """
    return [_part(kind, *one) for kind, registry in dlm.KINDS.items() for one in _each(registry)]


def searches() -> list[dict[str, str]]:
    """Every registered policy and verifier of searches, described as `parts` are."""
    from dlm.search.names import POLICIES, VERIFIERS

    return [_part(one.kind, *entry) for one in (POLICIES, VERIFIERS) for entry in _each(one)]


def parts_called(name: str) -> list[dict[str, str]]:
    """The parts, policies, verifiers and selectors of a name, with all that their docstrings say as
    `text`. Raises `InvalidRequest` for an unknown name.
    """
    from dlm.search.names import POLICIES, VERIFIERS
    from dlm.search.selectors import SELECTORS

    searches = ((one.kind, one) for one in (POLICIES, VERIFIERS, SELECTORS))
    registries = [*dlm.KINDS.items(), *searches]
    found = [
        _part(kind, name, load) | {"text": _text_of(load())}
        for kind, registry in registries
        for known, load in _each(registry)
        if known == name
    ]
    if not found:
        names = {one for _, registry in registries for one in registry.names()}
        raise unknown_name("part", name, names)
    return found


def _text_of(cls: Any) -> str:
    """The docstring of a part, and those of its bases that explain arguments which it does not."""
    own, *inherited = (cleandoc(one.__doc__ or "") for one in cls.__mro__)
    names = [one.name for one in dataclasses.fields(cls) if not one.metadata.get("bound")]
    for name in names:
        told = (text for text in [own, *inherited] if re.search(rf"\b{name}\b", text))
        first = next(told, own)
        own += f"\n\n{first}" * (first not in own)
    return own


def _each(registry: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The names of a registry, and what loads the class of each."""
    for name in registry.names():
        yield name, partial(registry.load, name)


def _part(kind: str, name: str, load: Callable[[], Any]) -> dict[str, str]:
    facts = dict.fromkeys(("kind", "name", "arguments", "does", "papers", "tier"), "")
    facts |= {"kind": kind, "name": name}
    try:
        cls = load()
    except InvalidRequest as error:  # of another package's plug-in
        return facts | {"does": error.message}
    text = inspect.getdoc(cls) or ""
    return facts | {
        "arguments": ", ".join(_arguments(cls)),
        "does": " ".join(text.split("\n\n", maxsplit=1)[0].split()),
        "papers": ", ".join(dict.fromkeys(re.findall(r"arXiv\s+(\d{4}\.\d{4,5})", text))),
        "tier": getattr(cls, "tier", "own rule"),
    }


def _arguments(cls: Any) -> Iterator[str]:
    """`name=default` of each field that a user may set."""
    for field in dataclasses.fields(cls):
        if not field.metadata.get("bound"):
            required = field.default is dataclasses.MISSING
            yield field.name if required else f"{field.name}={field.default!r}"


def installation() -> dict[str, Any]:
    """Versions, devices, bundled models, parts, policies and verifiers of searches."""
    return {
        "dlm": dlm.__version__,
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "devices": devices(),
        "models": list(dlm.bundled_names()),
        "parts": parts(),
        "searches": searches(),
    }


def devices() -> list[str]:
    """The devices that `--device` accepts, with a description."""
    import torch

    found = [f"cpu ({torch.get_num_threads()} threads)"]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        size = properties.total_memory / 2**30
        found.append(f"cuda:{index} ({properties.name}, {size:.0f} GiB)")
    return found


def model_facts(name: str, found: dlm.Inspection) -> dict[str, Any]:
    """Sizes and traits of a checkpoint; its weights are not read."""
    spec, info = found.spec, found.info
    return {
        "model": name,
        "family": info.family,
        "parameters": found.parameters,
        "layers": spec.layers,
        "width": spec.hidden_size,
        "heads": spec.heads,
        "key_value_heads": spec.kv_heads,
        "experts": None if spec.moe is None else spec.moe.experts,
        "experts_per_token": None if spec.moe is None else spec.moe.per_token,
        "vocabulary": info.vocab_size,
        "attention": info.attention,
        "block_length": info.block_length,
        "shift": info.shift,
        "mask_id": info.mask_id,
        "eos_ids": list(info.eos_ids),
        "pad_id": info.pad_id,
        "max_length": info.max_length,
        "trained_canvas": dlm.trained_canvas(name),
        "kv_bytes_per_token": {
            dtype: spec.kv_bytes_per_token(size) for dtype, size in ELEMENT_SIZES.items()
        },
        "tokenizer": None if found.text is None else _tokenizer(found.text.vocabulary),
    }


def _tokenizer(vocabulary: Any) -> dict[str, Any]:
    return {
        "chat_template": vocabulary.template is not None,
        "control_tokens": dict(sorted(vocabulary.control.items(), key=lambda item: item[1])),
    }


def show_installation(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Print `installation()`."""
    if as_json:
        show_json(dict(facts))
        return
    tables = ("parts", "searches")
    _lines((name, _words(value)) for name, value in facts.items() if name not in tables)
    _table([row for table in tables for row in facts[table]])


def show_parts(found: Sequence[Mapping[str, str]], *, as_json: bool) -> None:
    """Print `parts_called()`."""
    if as_json:
        show_json({"parts": list(found)})
        return
    for number, part in enumerate(found):
        print("\n" * (number > 0) + f"{part['kind']} {part['name']}({part['arguments']})")
        print(f"\n{part['text']}")


def show_model(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Print `model_facts()`; what does not apply is left out."""
    if as_json:
        show_json(dict(facts))
        return
    shown = dict(facts) | {"parameters": f"{facts['parameters']:,}"}
    tokenizer = facts["tokenizer"]
    if tokenizer is None:
        shown["tokenizer"] = "none: prompts are token ids"
    else:
        template = "with a" if tokenizer["chat_template"] else "without"
        count = len(tokenizer["control_tokens"])
        shown["tokenizer"] = f"{template} chat template, {count} control tokens"
    _lines((name, _words(value)) for name, value in shown.items() if value is not None)


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{number:,} ({name})" for name, number in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _lines(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values in two columns."""
    rows = [(name.replace("_", " "), value) for name, value in pairs]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}}  {value}")


def _table(rows: Sequence[Mapping[str, str]]) -> None:
    """The parts, as wide as the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("kind", "name", "tier", "does"):
        table.add_column(column, overflow="fold", no_wrap=column != "does")
    for row in rows:
        does = Text(row["does"].replace("`", ""))
        if row["arguments"]:
            does.append(f"\n{row['arguments']}", style="dim")
        table.add_row(row["kind"], row["name"], row["tier"], does)
    print()
    Console(markup=False).print(table)
