"""The fields of `GenerationConfig` and their aliases as command-line options, from one table."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from dlm import FIELDS, StopString
from dlm.errors import InvalidRequest, require_text, shown

PANEL: Final = "Decoding"
ALIAS_PANEL: Final = "The same by the names of the reference codes"
MORE: Final = "; may be repeated"
TEXT_ALONE: Final = "the given parts of the answer: a text with holes [[mask:24]]"
PART: Final = (
    "PART is a name (leap), a name with arguments in quotes (\"topk('entropy', steps=32)\"), or a "
    "class of your own ('package.module:Class()', the current folder included). `dlm info` lists "
    "the names."
)

# A type in words -> the parsed type, its name in the help, more for the help text.
TYPES: Final[Mapping[str, tuple[Any, str, str]]] = MappingProxyType(
    {
        "integer": (int | None, "INTEGER", ""),
        "number": (float | None, "NUMBER", ""),
        "part": (str | None, "PART", ""),
        "parts": (list[str] | None, "PART", MORE),
        "parts, strings": (list[str] | None, "PART|STRING", MORE),
        "map": (list[str] | None, "ID=NUMBER", MORE),
        "template": (str | None, "TEXT", ""),
        "name": (str | None, "NAME", ""),
        "flag": (bool | None, "", ""),
        "ids": (list[int] | None, "ID", MORE),
    }
)


def flag(name: str, text: str) -> Any:
    """An option that takes no value."""
    return typer.Option(name, metavar="", help=text)


Model = Annotated[
    str, typer.Option(metavar="NAME", help="bundled name, checkpoint folder, or hub id")
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N")]
Dtype = Annotated[
    str, typer.Option(metavar="NAME", help="auto, float32, bfloat16, float16 or float64")
]
MaskId = Annotated[
    int | None,
    typer.Option(metavar="INTEGER", help="mask id to use instead of the one in the files"),
]
Override = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE", help="value to use instead of the one in the files; may be repeated"
    ),
]
Aux = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=MODEL", help="a causal model that rules may ask for; may be repeated"
    ),
]
Json = Annotated[bool, flag("--json", "print one JSON object")]
StopText = Annotated[
    list[str] | None,
    typer.Option(
        "--stop-string",
        metavar="STRING",
        help="a string that ends the text, even if it spells a rule; may be repeated",
        rich_help_panel=PANEL,
    ),
]


def takes_fields(
    command: Callable[..., None], left_out: Collection[str] = ()
) -> Callable[..., None]:
    """Give `command`, which ends in `**options`, one named option for each field and alias, but for
    the fields and aliases `left_out`.
    """
    signature = inspect.signature(command, eval_str=True)
    own = list(signature.parameters.values())[:-1]
    added = [one for one in (*_of_fields(), *_of_aliases()) if one.name not in left_out]
    # typer reads the signature, which type checkers do not know of a function
    command.__signature__ = signature.replace(parameters=own + added)  # type: ignore[attr-defined]
    return command


def _of_fields() -> Iterator[inspect.Parameter]:
    for name, field in FIELDS.items():
        if name == "trace":
            text = "write the events to this file, one JSON object a line"
            yield _parameter(name, Path | None, "FILE", text, PANEL)
        else:
            kind, metavar, more = TYPES[field.type]
            meaning = TEXT_ALONE if name == "infill" else field.meaning
            text = f"{meaning}{more} (default: {field.default})"
            yield _parameter(name, kind, metavar, text, PANEL)


def _of_aliases() -> Iterator[inspect.Parameter]:
    for name, field in FIELDS.items():
        for alias, (kind, spec, note) in field.aliases.items():
            parsed, metavar, more = TYPES[kind]
            ours = f"--{name.replace('_', '-')}" + (f" {_quoted(spec)}" if spec else "")
            text = (f"{note}: " if note else "") + ours + more
            yield _parameter(alias, parsed, metavar, text, ALIAS_PANEL)


def _quoted(spec: str) -> str:
    """A spec string as a shell takes it."""
    if "(" not in spec:
        return spec
    return f'"{spec}"' if "'" in spec else f"'{spec}'"


def _parameter(name: str, kind: Any, shown: str, text: str, panel: str) -> inspect.Parameter:
    """A keyword of the command; None if the user does not give it."""
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        help=escape(text),  # brackets are no markup
        metavar=shown,
        show_default=False,
        rich_help_panel=panel,
    )
    annotation = Annotated[kind, option]
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=None, annotation=annotation)


def given(options: Mapping[str, Any], texts: Sequence[str] | None = None) -> dict[str, Any]:
    """Options of the command line as `Engine.generate` takes them, without those not given.

    `texts`: strings that end the text, whatever they spell. Raises `InvalidRequest`.
    """
    settings = {name: value for name, value in options.items() if value is not None and value != []}
    if texts:
        settings["stop"] = [*settings.get("stop", ()), *map(StopString, texts)]
    if "logit_bias" in settings:
        settings["logit_bias"] = biases(settings["logit_bias"])
    if "trace" in settings:
        settings["trace"] = True
    return settings


def biases(items: Sequence[str]) -> dict[int, float]:
    """`ID=NUMBER` items as a map. Raises `InvalidRequest`."""
    found: dict[int, float] = {}
    for item in items:
        token, _, number = item.partition("=")
        try:
            index, bias = int(token), float(number)
        except ValueError:
            raise InvalidRequest("logit_bias", f"must be ID=NUMBER, got {shown(item)}") from None
        if index in found:
            raise InvalidRequest("logit_bias", f"id {shown(index)} is given twice")
        found[index] = bias
    return found


def overrides(items: Sequence[str], mask_id: int | None) -> dict[str, Any]:
    """`NAME=VALUE` items as loading overrides: literals, or else strings.

    Raises `InvalidRequest` for an item that is no such pair and for a name given twice.
    """
    mask = [] if mask_id is None else [f"mask_id={mask_id}"]
    found = named("override", [*items, *mask], "VALUE")
    return {name: _literal(value) for name, value in found.items()}


def named(param: str, items: Sequence[str], what: str) -> dict[str, str]:
    """`NAME=VALUE` items as a map. Raises `InvalidRequest` naming `param`."""
    found: dict[str, str] = {}
    for item in items:
        name, equals, value = require_text(param, item).partition("=")
        if not (name and equals and value):
            raise InvalidRequest(param, f"must be NAME={what}, got {shown(item)}")
        if name in found:
            raise InvalidRequest(param, f"`{name}` is given twice")
        found[name] = value
    return found


def _literal(value: str) -> Any:
    lowered = value.strip().lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return value
