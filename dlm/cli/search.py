"""`dlm search`: the best answer that a search finds, with its costs and its tree."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

import dlm
from dlm.cli import output, trees
from dlm.cli.interrupts import INTERRUPTED, Catching
from dlm.cli.options import (
    Aux,
    Device,
    Dtype,
    Json,
    MaskId,
    Model,
    Override,
    StopText,
    flag,
    given,
    named,
    overrides,
)
from dlm.cli.prompt import Request, read_prompt
from dlm.cli.screen import PAUSE, counted
from dlm.errors import InvalidRequest

if TYPE_CHECKING:
    from dlm import SearchJob

SEARCH_PANEL: Final = "Search"
SINGLE: Final = ("n", "trace")
"""Fields of a request for several answers, or for the events of one row."""
EPILOG: Final = (
    'POLICY, VERIFIER and PART are names (best_of), names with arguments in quotes ("best_of(8)"), '
    "or classes of your own ('package.module:Class()', the current folder included). `dlm info` "
    "lists the names. Most policies need --temperature above 0, as all answers are the same "
    "without chance; for these it is 1 by default."
)


def _asked(metavar: str, text: str) -> Any:
    return typer.Option(metavar=metavar, help=text, rich_help_panel=SEARCH_PANEL)


def search(
    prompt: Annotated[
        str | None, typer.Argument(help="the prompt; without it, or for -, stdin is read")
    ] = None,
    model: Model = "tiny",
    device: Device = "auto",
    dtype: Dtype = "auto",
    mask_id: MaskId = None,
    override: Override = None,
    aux: Aux = None,
    search: Annotated[
        str, _asked("POLICY", "the way to search: a name, or a name with arguments in quotes")
    ] = "best_of",
    verifier: Annotated[
        list[str] | None,
        _asked(
            "VERIFIER",
            "the judge of the answers; several are an ensemble by ranks (default: the policy's)",
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        _asked(
            "NAME=NUMBER",
            "a bound: nfe (forwards), token_forwards (positions) or seconds; may be repeated",
        ),
    ] = None,
    target: Annotated[
        float | None,
        _asked("NUMBER", "a score at which the search ends (default: the highest possible)"),
    ] = None,
    allow_oracle: Annotated[
        bool,
        typer.Option(
            "--allow-oracle",
            metavar="",
            help="take verifiers that know the right answer, for analysis",
            rich_help_panel=SEARCH_PANEL,
        ),
    ] = False,
    out: Annotated[
        Path | None, _asked("FILE", "write the tree of the search as JSON, for `dlm trace`")
    ] = None,
    raw: Annotated[bool, flag("--raw", "leave out the chat template")] = False,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="system message")] = None,
    stop_string: StopText = None,
    json: Json = False,
    quiet: Annotated[bool, flag("--quiet", "no progress and no status line")] = False,
    n: Annotated[int | None, typer.Option("--n", hidden=True)] = None,
    trace: Annotated[Path | None, typer.Option("--trace", hidden=True)] = None,
    **options: Any,
) -> None:
    """Answer a prompt by a search. The best answer goes to stdout, one line about it to stderr."""
    _refuse_several(n, trace)
    settings = with_chance(given(options, stop_string), search)
    config = dlm.GenerationConfig.from_options(settings)
    judge = verifier[0] if verifier and len(verifier) == 1 else verifier or None
    asked = dlm.SearchOptions(search, judge, bounds(budget or []), target, allow_oracle)
    request = read_prompt(prompt, system, raw=raw, may_be_empty=config.infill is not None)
    output.check_file("out", out)
    changes, helpers = overrides(override or [], mask_id), named("aux", aux or [], "MODEL")
    engine = dlm.load(model, device=device, dtype=dtype, aux=helpers, overrides=changes)
    job = engine.prepare_search(request.for_engine(engine), asked, settings)
    interrupted = _drive(engine, job, asked, quiet=quiet)
    found = job.result()
    if out is not None:
        write_tree(found, out, engine.name, asked, request, chosen(config, settings))
    _show(found, model, config, as_json=json, quiet=quiet)
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def bounds(items: Sequence[str]) -> dict[str, float] | None:
    """`NAME=NUMBER` items as a budget; None without any. Raises `InvalidRequest`."""
    found: dict[str, float] = {}
    for name, value in named("budget", items, "NUMBER").items():
        kind, read = ("a number", float) if name == "seconds" else ("an integer", int)
        try:
            found[name] = read(value)
        except ValueError:
            raise InvalidRequest(f"budget.{name}", f"must be {kind}, got {value!r}") from None
    return found or None


def with_chance(settings: Mapping[str, Any], search: str) -> dict[str, Any]:
    """The settings, with temperature 1 where none is given and the policy needs chance.

    Raises `InvalidRequest` for a wrong policy.
    """
    from dlm.search.searcher import parse_policy

    is_given = "temperature" in dlm.GenerationConfig.named(settings)
    needs = not is_given and parse_policy(search).diverse
    return {**settings, **({"temperature": 1.0} if needs else {})}


def _refuse_several(n: int | None, trace: Path | None) -> None:
    """Refuse the options of `dlm generate` that are of several answers, or of one row."""
    if n not in (None, 1):
        raise InvalidRequest("n", f"must be 1: a search gives one answer, got {n}")
    if trace is not None:
        raise InvalidRequest("trace", "is of `dlm generate`: --out keeps the tree of a search")


def chosen(config: dlm.GenerationConfig, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, with seed and temperature, as plain data."""
    names = {"seed", "temperature", *dlm.GenerationConfig.named(settings)}
    return {name: value for name, value in output.settings(config).items() if name in names}


def write_tree(
    found: dlm.SearchResult,
    path: Path,
    model: str,
    asked: dlm.SearchOptions,
    request: Request,
    options: Mapping[str, Any],
) -> None:
    """Write a search and its request to a file, one JSON object."""
    from dlm.search.saved import SavedRequest, SavedSearch

    judge = asked.verifier if isinstance(asked.verifier, str) else ", ".join(asked.verifier or [])
    rest = asked.budget or {}, asked.target, options
    whole = SavedRequest(request.text, request.system, request.raw, *rest)
    saved = SavedSearch.of(found, model=model, search=asked.search, verifier=judge, request=whole)
    path.write_text(json.dumps(saved.to_json()) + "\n", encoding="utf-8")


def _drive(engine: dlm.Engine, job: SearchJob, asked: dlm.SearchOptions, *, quiet: bool) -> bool:
    """Bring a search to its end, with a line of progress in a terminal; True if Ctrl-C ended it.

    Ctrl-C before the first step of a row is passed on, as there is no answer.
    """
    console = Console(stderr=True, highlight=False)
    live = Live(console=console, transient=True, auto_refresh=False)
    moves, drawn = console.is_terminal and not quiet, 0.0
    most = (asked.budget or {}).get("nfe")
    try:
        with Catching():
            if moves:
                live.start()
            for one in engine.search_steps(job):
                if moves and (seconds := one.costs().seconds) - drawn > PAUSE:
                    drawn = seconds
                    live.update(Text(progress(one, most), style="dim"), refresh=True)
    except KeyboardInterrupt:
        if job.best is None:
            raise
        return True
    finally:
        live.stop()
    return False


def progress(job: SearchJob, most: float | None = None) -> str:
    """One line about a search on its way: forwards, answers, the best score.

    most: forwards of its budget
    """
    spent = f"{job.costs().nfe:.0f}"
    forwards = counted(int(job.costs().nfe), "forward") if most is None else f"{spent} of {most}"
    parts = [forwards, counted(len(job.candidates), "answer")]
    if job.best is not None and not isnan(job.best.score):
        parts.append(f"best {job.best.score:.4g}")
    return " · ".join(parts)


def _show(
    found: dlm.SearchResult,
    model: str,
    config: dlm.GenerationConfig,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Print the best answer, as text or with the costs as one JSON object."""
    if as_json:
        document = {**output.record(found.best), "search": found.summary()}
        output.show_json(document | {"model": model, "config": output.settings(config)})
    else:
        print(output.shown(found.best))
    sys.stdout.flush()
    if not quiet:
        typer.secho(status(found), err=True, dim=True)


def status(found: dlm.SearchResult) -> str:
    """One line about a search that has ended: score, forwards, answers, seconds, reason."""
    costs = found.costs
    return " · ".join(
        [
            "not judged" if isnan(found.score) else f"score {found.score:.4g}",
            trees.forwards(costs),
            counted(len(found.candidates), "answer"),
            f"{costs.seconds:.2f} s",
            found.reason,
            *(["with an oracle"] if found.oracle else []),
        ]
    )
