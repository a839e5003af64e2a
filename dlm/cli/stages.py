"""The stages of a run as the command line shows them: generate, grade, report."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import typer

import dlm
from dlm.cli.checks import MOST_THREADS, at_least, at_most
from dlm.cli.interrupts import Catching
from dlm.errors import InvalidRequest, needs_extra


def run_eval(
    run: Any,
    model: str | None,
    where: tuple[str, str],
    threads: int,
    workers: int,
    *,
    causal: str | None = None,
    endpoint: str | None = None,
    sandbox: Any = None,
    quiet: bool = False,
) -> Any:
    """Carry out all stages of a run and return its results; refuse faults before loading anything.

    `where`: device and dtype · `endpoint`: the server that answers instead of a model · `sandbox`:
    where code is run (None: the best there is).
    """
    from dlm.evals.graders import Judge
    from dlm.evals.run import estimate

    at_least(1, threads=threads, workers=workers)
    at_most(MOST_THREADS, threads=threads, workers=workers)
    run.check()
    engine, twin = _answering(run, model, where, threads, causal, endpoint)
    _tell_alike(run)
    if sandbox is not None:
        typer.secho(f"code runs under {sandbox.kind} ({sandbox.python})", err=True, dim=True)
    try:
        run.open(engine, twin)
        if not quiet and endpoint is None:
            seconds = timedelta(seconds=round(estimate(engine, run, twin)))
            typer.secho(f"{run.missing()} answers to draw, about {seconds}", err=True, dim=True)
        _generate(engine, twin, run, quiet=quiet)
    finally:
        if endpoint is not None:
            engine.close()
    with Catching():
        run.grade(Judge(workers, sandbox))
    return tell_results(run, quiet=quiet)


def _answering(
    run: Any,
    model: str | None,
    where: tuple[str, str],
    threads: int,
    causal: str | None,
    endpoint: str | None,
) -> tuple[Any, Any]:
    """Load the engine (or reach the endpoint) that answers, and the causal model, if any.

    The settings are checked against the engine's files before anything is loaded. The causal model
    has no such check, so it is loaded first: a fault in it shows before the longer load.
    """
    import torch

    device, dtype = where
    if endpoint is None:
        looked_at = dlm.inspect(model or "tiny")
        for setting in (s for s in run.settings if not s.causal):
            looked_at.explain(**setting.options)
    torch.set_num_threads(threads)
    twin = None if causal is None else dlm.load_causal(causal, device=device, dtype=dtype)
    if endpoint is not None:
        return _served(run, model, endpoint), twin
    rows = max(run.rows, 1)
    return dlm.load(model or "tiny", device=device, dtype=dtype, max_rows=rows), twin


def _tell_alike(run: Any) -> None:
    """Say where several samples will be the same answer."""
    from dlm.evals.settings import draws_alike

    if alike := draws_alike(run.settings, run.samples):
        names = ", ".join(map(repr, alike))
        typer.secho(
            f"--samples {run.samples} at temperature 0: unless their rule draws by itself, all "
            f"samples of an item are one answer under {names}",
            err=True,
        )


def _served(run: Any, model: str | None, url: str) -> Any:
    """The server that answers."""
    from dlm.evals.endpoint import Endpoint as Served

    return Served(url, model)


def _generate(engine: Any, causal: dlm.CausalEngine | None, run: Any, *, quiet: bool) -> None:
    """The first stage with a progress bar: answers, forwards, tokens a second, time left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[cost]}"),
    )
    begun = time.perf_counter()
    forwards = tokens = 0
    with Catching(), Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        bar = progress.add_task("answers", total=run.missing(), cost="")

        def tell(setting: Any, task: str, sample: Any) -> None:
            nonlocal forwards, tokens
            forwards, tokens = forwards + sample.nfe, tokens + sample.tokens
            rate = tokens / (time.perf_counter() - begun)
            cost = f"{forwards} forwards, {rate:.0f} tokens/s"
            progress.update(bar, advance=1, description=f"{setting.name}, {task}", cost=cost)

        run.generate(engine, tell, causal)


def tell_results(run: Any, baseline: str | None = None, *, quiet: bool = False) -> Any:
    """Write the report and print its table; the results."""
    from dlm.evals.report import table, write_report
    from dlm.evals.results import results_of

    try:
        results = results_of(run, baseline)
        write_report(results, run.folder)
    except ImportError as error:
        raise InvalidRequest("eval", needs_extra(error.name or "scipy", "evals")) from error
    lost = sum(figures.unjudged for figures in results.figures)
    if lost:
        again = f"`dlm eval report {run.folder}` tries again"
        typer.secho(f"{lost} answers could not be judged and are in no figure: {again}", err=True)
    if not quiet:
        print(table(results))
        files = "results.json, table.md and plot.png"
        typer.secho(f"{files} are in {run.folder}", err=True, dim=True)
    return results
