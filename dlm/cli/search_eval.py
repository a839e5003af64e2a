"""`dlm eval search`: accuracy of searches against the forwards they spend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from dlm.cli.benchmark import app
from dlm.cli.checks import MOST_THREADS, at_least, at_most, names
from dlm.cli.evaluate import Device, Dtype, Model, Quiet, Split, Threads, tasks_of
from dlm.cli.interrupts import Catching
from dlm.errors import InvalidRequest, needs_extra

__all__ = ["app"]

SAMPLER = "temperature=1.0, blocks=fixed(8), cache=dual"
"""The decoding that all methods share by default."""
MOST_ROWS = 256
"""Rows of the engine, among which the rows of all searches are."""


Sampler = Annotated[
    str, typer.Option(metavar="'OPTION=VALUE, ...'", help="the decoding of all answers")
]
Tasks = Annotated[str, typer.Option(metavar="NAME,...", help="tasks of the set")]
Limit = Annotated[int, typer.Option(metavar="INTEGER", help="problems of each task")]
AtOnce = Annotated[int, typer.Option(metavar="INTEGER", help="searches whose rows share forwards")]
Out = Annotated[Path, typer.Option(metavar="FOLDER", help="where the run is kept")]


@app.command()
def search(
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'NAME: search=..., OPTION=VALUE, ...'",
            help="a method of your own, measured with best_of alone beside it; may be repeated "
            "(default: the built-in methods)",
        ),
    ] = None,
    sampler: Sampler = SAMPLER,
    tasks: Tasks = "countdown",
    only: Annotated[
        str, typer.Option(metavar="NAME,...", help="some of the built-in methods (default: all)")
    ] = "",
    limit: Limit = 200,
    seeds: Annotated[int, typer.Option(metavar="INTEGER", help="searches on each problem")] = 1,
    most: Annotated[
        int,
        typer.Option(metavar="INTEGER", help="budget of a search, in plain answers"),
    ] = 64,
    at_once: AtOnce = 32,
    split: Split = "dev",
    out: Out = Path("runs/search"),
    model: Model = "tiny",
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 1,
    quiet: Quiet = False,
) -> None:
    """Measure the accuracy of searches against all forwards that they spend.

    An interrupted run continues where it was, and methods may be added to it.
    """
    from dlm.evals.search.methods import default_methods, parse_method, with_sampler
    from dlm.evals.search.run import SearchRun

    at_least(1, limit=limit, seeds=seeds, most=most, at_once=at_once, threads=threads)
    at_most(MOST_THREADS, threads=threads)
    with _blaming("method"):
        added = [parse_method(text) for text in method or ()]
    with _blaming("sampler"):
        methods = {
            task: [
                *default_methods(task, sampler, names("only", only), few=bool(added), most=most),
                *(with_sampler(one, task, sampler) for one in added),
            ]
            for task in tasks_of(tasks)
        }
    size: dict[str, Any] = {"split": split, "limit": limit, "seeds": seeds, "most": most}
    run = SearchRun(out, methods, at_once=at_once, **size)
    told = _carry_out(run, *_opened(run, model, (device, dtype), threads), quiet=quiet)
    if not quiet:
        print(told)


@app.command()
def verifiers(
    verifier: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="may be repeated (default: those of each task)"),
    ] = None,
    sampler: Sampler = SAMPLER,
    tasks: Tasks = "countdown",
    limit: Limit = 200,
    at_once: AtOnce = 16,
    split: Split = "dev",
    out: Out = Path("runs/verifiers"),
    model: Model = "tiny",
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 1,
    quiet: Quiet = False,
) -> None:
    """Measure verifiers by themselves: how often the best-scored of 16 answers is right."""
    from dlm.evals.search.judges import write_judges
    from dlm.evals.search.methods import panel
    from dlm.evals.search.run import SearchRun

    at_least(1, limit=limit, at_once=at_once, threads=threads)
    at_most(MOST_THREADS, threads=threads)
    with _blaming("sampler"):
        methods = {task: [panel(task, sampler, verifier or ())] for task in tasks_of(tasks)}
    size: dict[str, Any] = {"split": split, "limit": limit}
    run = SearchRun(out, methods, at_once=at_once, **size)
    engine, header = _opened(run, model, (device, dtype), threads)
    with Catching():
        found = {task: run.judge(engine, task) for task in methods}
    told = write_judges(header, found, out)
    if not quiet:
        print(told)


@contextmanager
def _blaming(option: str) -> Iterator[None]:
    """Name the option of the command whose text is no list of options."""
    try:
        yield
    except InvalidRequest as error:
        if error.param != "config":
            raise
        raise InvalidRequest(option, error.message) from None


def _opened(run: Any, model: str, where: tuple[str, str], threads: int) -> tuple[Any, Any]:
    """Check a run before its model is loaded; the engine, and the header of the run."""
    import torch

    import dlm
    from dlm.search.searcher import parse_policy
    from dlm.search.verifiers.parsing import parse_verifier

    for method in (one for some in run.methods.values() for one in some):
        parse_policy(method.options["search"])
        parse_verifier(method.options["verifier"])
    run.check()
    torch.set_num_threads(threads)
    engine = dlm.load(model, device=where[0], dtype=where[1], max_rows=MOST_ROWS)
    return engine, run.open(engine)


def _carry_out(run: Any, engine: Any, header: Any, *, quiet: bool) -> str:
    """Draw what is missing and write the report; its tables."""
    from dlm.evals.search.figures import all_figures
    from dlm.evals.search.report import write_report

    missing = run.missing()

    def tell(task: str, method: Any, trial: Any) -> None:
        nonlocal missing
        missing -= 1
        if not quiet and missing % 50 == 0:
            line = f"{task}, {method.name}: {missing} searches to go"
            typer.secho(line, err=True, dim=True)

    try:
        with Catching():
            run.draw(engine, tell)
            whole = run.whole(header)
            figures = [row for task in whole.methods for row in all_figures(whole, task)]
            return write_report(header, figures, run.seconds(), run.folder)
    except ImportError as error:
        raise InvalidRequest("eval", needs_extra(error.name or "scipy", "evals")) from error
