"""The commands, and the one place where their errors become lines and exit codes."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import dlm
from dlm.cli import chat as talking
from dlm.cli import info as tell
from dlm.cli import output, screen, search_eval, trees
from dlm.cli import trace as tracing
from dlm.cli.decide import decide
from dlm.cli.faults import report_error
from dlm.cli.help import PlainGroup
from dlm.cli.interrupts import INTERRUPTED, Catching
from dlm.cli.options import (
    PART,
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
    takes_fields,
)
from dlm.cli.page import write_page
from dlm.cli.prompt import read_prompt
from dlm.cli.search import EPILOG, SINGLE, search
from dlm.cli.serve import serve
from dlm.cli.streams import (
    FAULT,
    close_streams,
    open_missing_streams,
    show_what_can_be_shown,
    warnings_as_lines,
)
from dlm.cli.tree_page import show_tree
from dlm.errors import InvalidRequest

# Garbage is looked for after this many new objects: what starting makes, stays. See `gc`.
COLLECTIONS = 50_000, 20, 20

app = typer.Typer(
    cls=PlainGroup,
    help="Decode diffusion language models.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(search_eval.app, name="eval")


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, flag("--version", "print the version")] = False,
) -> None:
    """Decode diffusion language models."""
    if version:
        print(f"dlm {dlm.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command(epilog=PART)
@takes_fields
def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="the prompt; without it, or for -, stdin is read")
    ] = None,
    model: Model = "tiny",
    device: Device = "auto",
    dtype: Dtype = "auto",
    mask_id: MaskId = None,
    override: Override = None,
    aux: Aux = None,
    raw: Annotated[bool, flag("--raw", "leave out the chat template")] = False,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="system message")] = None,
    stop_string: StopText = None,
    json: Json = False,
    explain: Annotated[
        bool, flag("--explain", "describe what these options would do, and stop")
    ] = False,
    watch: Annotated[
        bool, flag("--watch", "show the canvas on stderr while it is unmasked")
    ] = False,
    quiet: Annotated[bool, flag("--quiet", "no status line")] = False,
    **options: Any,
) -> None:
    """Answer a prompt. The text goes to stdout, one line about it to stderr."""
    settings, trace = given(options, stop_string), options["trace"]
    config = dlm.GenerationConfig.from_options(settings)
    changes, helpers = overrides(override or [], mask_id), named("aux", aux or [], "MODEL")
    if explain:
        checkpoint = dlm.inspect(model, aux=helpers, overrides=changes)
        output.explanation(checkpoint.explain(**settings), as_json=json)
        return
    request = read_prompt(prompt, system, raw=raw, may_be_empty=config.infill is not None)
    output.check_file("trace", trace)
    engine = dlm.load(model, device=device, dtype=dtype, aux=helpers, overrides=changes)
    if not quiet:
        output.long_canvas(engine, config)
    answer, interrupted = _answer(engine, request.for_engine(engine), settings, watch=watch)
    output.events(answer, trace, engine)
    output.answer(answer, model, config, as_json=json, quiet=quiet)
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def _answer(
    engine: dlm.Engine, prompt: Any, settings: dict[str, Any], *, watch: bool
) -> tuple[dlm.Generation, bool]:
    """Generate one answer; also return True if Ctrl-C cut it short."""
    if watch:
        return talking.watched(engine, prompt, settings)
    try:
        with Catching():
            return engine.generate(prompt, **settings), False
    except dlm.Interrupted as stop:
        partial: Any = stop.partial
        return partial, True


@app.command(epilog=PART)
@takes_fields
def chat(
    model: Model = "tiny",
    device: Device = "auto",
    dtype: Dtype = "auto",
    mask_id: MaskId = None,
    override: Override = None,
    aux: Aux = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="system message")] = None,
    plain: Annotated[bool, flag("--plain", "do not show the canvas")] = False,
    stop_string: StopText = None,
    **options: Any,
) -> None:
    """Talk to a model and watch its answers being unmasked."""
    settings = given(options, stop_string)
    config = dlm.GenerationConfig.from_options(settings)
    if config.trace:
        raise InvalidRequest("trace", "is an option of `dlm generate`: a chat has many answers")
    if config.n > 1:
        raise InvalidRequest("n", f"must be 1 in a chat, got {config.n}")
    changes, helpers = overrides(override or [], mask_id), named("aux", aux or [], "MODEL")
    dlm.inspect(model, aux=helpers, overrides=changes).explain(**settings)
    engine = dlm.load(model, device=device, dtype=dtype, aux=helpers, overrides=changes)
    output.long_canvas(engine, config)
    with Catching():
        talking.talk(engine, system, settings, plain=plain)


app.command(epilog=PART)(serve)
app.command(epilog=EPILOG)(takes_fields(search, left_out=SINGLE))
app.command()(decide)


@app.command()
def trace(
    file: Annotated[
        Path, typer.Argument(help="a file that `--trace`, or `dlm search --out`, has written")
    ],
    row: Annotated[int, typer.Option(metavar="INTEGER", help="number of the choice to show")] = 0,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="write an HTML page (of a trace: with a scrubber)"),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="write a picture (needs the extra evals)"),
    ] = None,
    speed: Annotated[
        float, typer.Option(metavar="NUMBER", help="forwards a second in the terminal")
    ] = 8.0,
) -> None:
    """Show a saved trace or search again: in the terminal, as an HTML page, or as a picture."""
    for name, path in (("html", html), ("png", png)):
        output.check_file(name, path)
    if png is not None:
        tracing.require_matplotlib()
    if (tree := trees.read_tree(file)) is not None:
        show_tree(tree, row, html, png)
        return
    saved = tracing.read_trace(file)
    if html is not None:
        write_page(saved, row, html)
    if png is not None:
        tracing.write_picture(saved, row, png)
    if html is None and png is None:
        with Catching():
            screen.replay(saved.frames(row), speed)


@app.command()
def verify(
    model: Annotated[str, typer.Argument(help="bundled name, checkpoint folder, or hub id")],
    device: Device = "auto",
    dtype: Dtype = "float32",
    mask_id: MaskId = None,
    override: Override = None,
) -> None:
    """Check a checkpoint on this machine: ids, logits, decoding. Exit code 1 if one is wrong."""
    from dlm.evals.verify import verify as checks

    changes, wrong = overrides(override or [], mask_id), 0
    for check in checks(model, device=device, dtype=dtype, overrides=changes):
        print(f"{check.status:8} {check.name:14} {check.detail}", flush=True)
        wrong += check.status == "wrong"
    if wrong:
        raise typer.Exit(FAULT)


@app.command()
def info(
    model: Annotated[
        str | None, typer.Argument(help="bundled name, checkpoint folder, or hub id")
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="rule, cache, search, verifier or selector to describe"),
    ] = None,
    mask_id: MaskId = None,
    override: Override = None,
    json: Json = False,
) -> None:
    """List versions, devices, models and parts; or describe one model, or one part."""
    changes = overrides(override or [], mask_id)
    if part is not None:
        if model is not None or changes:
            raise InvalidRequest("part", "is described by itself: name no model")
        tell.show_parts(tell.parts_called(part), as_json=json)
    elif model is None:
        if changes:
            raise InvalidRequest("override", "changes a model: name one")
        tell.show_installation(tell.installation(), as_json=json)
    else:
        checkpoint = dlm.inspect(model, overrides=changes)
        tell.show_model(tell.model_facts(model, checkpoint), as_json=json)


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code. Whatever goes wrong is one line on stderr, but for the lines
    of a user's own rule; so is a warning of dlm.
    """
    show_what_can_be_shown()
    try:
        with warnings_as_lines():
            command = typer.main.get_command(app)
            code = command.main(list(arguments), prog_name="dlm", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        return report_error(error)
    return code if isinstance(code, int) else 0


def main() -> None:
    """Run the command that the process was started with, and end the process."""
    gc.set_threshold(*COLLECTIONS)
    lost = open_missing_streams()
    if "" not in sys.path:
        sys.path.append("")  # parts given as `pkg.mod:Class` may live in the current folder
    code = run(sys.argv[1:])
    gc.freeze()  # else the interpreter looks through all that torch is made of once more
    sys.exit(close_streams(code, lost=lost))
