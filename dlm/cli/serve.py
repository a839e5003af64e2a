"""`dlm serve`: settings from flags, a file and the environment, then the server."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

import dlm
from dlm.cli.interrupts import leave_on_terminate
from dlm.cli.options import (
    Aux,
    MaskId,
    Override,
    given,
    named,
    overrides,
    takes_fields,
)
from dlm.serve.settings import PER_REQUEST, SETTINGS, ServerSettings, Setting

LOG: Final = logging.getLogger("dlm.serve")
PANEL: Final = "Server"
LOADING: Final[Mapping[str, str]] = MappingProxyType(
    {"model": "tiny", "device": "auto", "dtype": "auto"}
)
"""The options that load a model, with their defaults."""
TYPES: Final[Mapping[str, tuple[Any, str]]] = MappingProxyType(
    {
        "integer": (int | None, "INTEGER"),
        "number": (float | None, "NUMBER"),
        "text": (str | None, "TEXT"),
        "texts": (list[str] | None, "TEXT"),
        "flag": (bool | None, ""),
    }
)
"""The type of a setting in words -> the parsed type, and its name in the help."""

Config = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="YAML file with any of these options; flags go first"),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="file with the API keys, one a line", rich_help_panel=PANEL),
]
Model = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="bundled name, checkpoint folder, or hub id (default: tiny)"),
]
Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N (default: auto)")
]
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="auto, float32, bfloat16, float16 or float64 (default: auto)"
    ),
]


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command`, which ends in `**options`, one option for each setting of a server, and one
    for each option of generation that a server can have a default for.
    """
    signature = inspect.signature(command, eval_str=True)
    *own, last = signature.parameters.values()
    parameters = [*own, *_of_settings(), last]
    # typer reads the signature, which type checkers do not know of a function
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return takes_fields(command, left_out=(*PER_REQUEST, "max_new_tokens", "gen_length"))


def _of_settings() -> Iterator[inspect.Parameter]:
    usual = ServerSettings()
    for name, setting in SETTINGS.items():
        if name != "defaults":  # the options of generation
            yield _parameter(name, setting, getattr(usual, name))


def _parameter(name: str, setting: Setting, usual: Any) -> inspect.Parameter:
    """A keyword of the command for one setting; None if the user does not give it."""
    kind, shown = TYPES[setting.type]
    flag = f"--{setting.flag or name.replace('_', '-')}"
    text = setting.meaning
    if setting.type == "texts":
        text += "; may be repeated"
    elif setting.type == "flag":
        flag = flag.replace("--", "--no-") if usual else flag
        text = f"do not {text}" if usual else text
    elif usual is not None:
        text += f" (default: {usual})"
    option = typer.Option(
        flag, help=escape(text), metavar=shown, show_default=False, rich_help_panel=PANEL
    )
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=None, annotation=Annotated[kind, option])


@takes_settings
def serve(
    config: Config = None,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    mask_id: MaskId = None,
    override: Override = None,
    aux: Aux = None,
    api_key_file: KeyFile = None,
    **options: Any,
) -> None:
    """Serve a model over HTTP as OpenAI's clients expect it, with a live page at /.

    At the first Ctrl-C or SIGTERM it lets running requests end (exit code 0).

    A second one ends it at once.
    """
    leave_on_terminate()
    file = _read(config)
    settings = _settings(file, options, api_key_file)
    sources = {name: file.get(name, usual) for name, usual in LOADING.items()}
    flags = {"model": model, "device": device, "dtype": dtype}
    sources |= {name: value for name, value in flags.items() if value is not None}
    corrected = file.get("override", {}) | {n: file[n] for n in ("mask_id",) if n in file}
    changes = corrected | overrides(override or [], mask_id)
    helpers = file.get("aux", {}) | named("aux", aux or [], "MODEL")
    _serve(sources, changes, helpers, settings)


def _serve(
    sources: Mapping[str, str],
    changes: Mapping[str, Any],
    helpers: Mapping[str, str],
    settings: ServerSettings,
) -> None:
    import dlm.serve.app  # a missing package is told before a model is loaded
    from dlm.serve.logs import configure_logs
    from dlm.serve.server import listening_socket, run

    listener = listening_socket(settings)
    source = sources["model"]
    dlm.inspect(source, aux=helpers, overrides=changes).explain(**settings.defaults)
    configure_logs(settings.log_level)
    told = {"model": source, "device": sources["device"], "dtype": sources["dtype"]}
    LOG.info("loading the model", extra=told)
    engine = dlm.load(
        source,
        device=sources["device"],
        dtype=sources["dtype"],
        max_rows=settings.max_rows,
        max_waiting=settings.max_waiting,
        aux=helpers,
        overrides=changes,
    )
    if code := run(engine, settings, listener):
        raise typer.Exit(code)


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    from dlm.serve.config_file import read_config

    return read_config(path)


def _settings(
    file: Mapping[str, Any], options: dict[str, Any], key_file: Path | None
) -> ServerSettings:
    """The settings of flags, else of the file; API keys also of the environment.

    Raises `InvalidRequest`.
    """
    flags = {name: options.pop(name) for name in SETTINGS if name in options}
    flags = {name: value for name, value in flags.items() if value is not None and value != []}
    if "page" in flags:
        flags["page"] = False  # the flag is --no-page
    found = {name: value for name, value in file.items() if name in SETTINGS} | flags
    found["api_keys"] = _keys(flags, file, key_file)
    named_in_file = dlm.GenerationConfig.named(file.get("defaults", {}))
    found["defaults"] = named_in_file | dlm.GenerationConfig.named(given(options))
    return ServerSettings(**found)


def _keys(
    flags: Mapping[str, Any], file: Mapping[str, Any], key_file: Path | None
) -> Sequence[str]:
    """The API keys of the first place that has any: flags, the file, the environment."""
    from dlm.serve.config_file import keys_of_environment, read_keys

    for source, path in ((flags, key_file), (file, file.get("api_key_file"))):
        keys = [*source.get("api_keys", ()), *(read_keys(Path(path)) if path else ())]
        if keys:
            return keys
    return keys_of_environment(os.environ)
