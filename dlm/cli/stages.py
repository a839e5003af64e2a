"""The stages of a run as the command line shows them: generate, grade, report."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import typer

import dlm
from dlm.cli.interrupts import Catching
from dlm.errors import InvalidRequest


def carry_out(
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
    """All stages of a run, and its results. What cannot work is said before anything is loaded.

    `where`: device and dtype · `endpoint`: the server that answers instead of a model · `sandbox`:
    where code is run (None: the best there is).
    """
    import torch

    from dlm.evals.judging import Judge
    from dlm.evals.run import estimate

    torch.set_num_threads(threads)
    device, dtype = where
    engine: Any = _engine(run, model, where) if endpoint is None else _served(run, model, endpoint)
    twin = None if causal is None else dlm.load_causal(causal, device=device, dtype=dtype)
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


def _engine(run: Any, model: str | None, where: tuple[str, str]) -> dlm.Engine:
    """The model that answers, once it is sure that it can be asked like that."""
    source, (device, dtype) = model or "tiny", where
    looked_at = dlm.inspect(source)
    for setting in run.settings:
        looked_at.explain(**setting.options)
    return dlm.load(source, device=device, dtype=dtype, max_rows=max(run.rows, 1))


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
        raise InvalidRequest("eval", f"needs `pip install dlm[evals]`: {error}") from error
    lost = sum(figures.unjudged for figures in results.figures)
    if lost:
        again = f"`dlm eval report {run.folder}` tries again"
        typer.secho(f"{lost} answers could not be judged and are in no figure: {again}", err=True)
    if not quiet:
        print(table(results))
        files = "results.json, table.md and plot.png"
        typer.secho(f"{files} are in {run.folder}", err=True, dim=True)
    return results
