"""`dlm eval`: compare settings on test sets, and report on a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import dlm
from dlm.cli.checks import at_least, names, server_alone
from dlm.cli.help import PlainGroup
from dlm.cli.options import flag
from dlm.cli.stages import run_eval, tell_results
from dlm.errors import InvalidRequest

app = typer.Typer(
    cls=PlainGroup,
    help="Compare decoding settings on test sets.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DEFAULT = (
    "one token a step: unmask=topk, blocks=fixed(8)",
    "threshold 0.9: unmask=threshold(0.9), blocks=fixed(8)",
)
"""The settings that are compared by default."""
SERVED = ("served: temperature=0.0",)
"""The same of an endpoint, which decodes as it is set up."""


Tasks = Annotated[str, typer.Option(metavar="NAME,...", help="tasks of the set")]
Rungs = Annotated[
    str, typer.Option(metavar="NAME,...", help="steps of their ladders (default: all)")
]
Limit = Annotated[
    int | None, typer.Option(metavar="INTEGER", help="items of each task (default: all)")
]
Split = Annotated[str, typer.Option(metavar="NAME", help="test or dev")]
Rows = Annotated[
    int,
    typer.Option(metavar="INTEGER", help="requests in flight; 1: each is timed by itself"),
]
Out = Annotated[Path, typer.Option(metavar="FOLDER", help="where the run is kept")]
Model = Annotated[
    str, typer.Option(metavar="NAME", help="bundled name, checkpoint folder, or hub id")
]
ServedModel = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="bundled name, checkpoint folder, or hub id (default: tiny); of an endpoint, one of "
        "its models (default: its first)",
    ),
]
Endpoint = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="ask a server that speaks OpenAI's protocol (http://host:port/v1) instead of a model",
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N")]
Dtype = Annotated[
    str, typer.Option(metavar="NAME", help="auto (float32 on a CPU, else the files'), float32, ...")
]
Threads = Annotated[int, typer.Option(metavar="INTEGER", help="threads of the CPU")]
Workers = Annotated[int, typer.Option(metavar="INTEGER", help="answers graded at once")]
Unsafe = Annotated[
    bool,
    flag("--allow-unsafe-code", "run code with nothing but limits around it"),
]
Quiet = Annotated[bool, flag("--quiet", "no progress, no table")]


@app.command()
def bundled(
    config: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'NAME: OPTION=VALUE, ...'",
            help="a setting to compare; may be repeated, the first is the baseline",
        ),
    ] = None,
    tasks: Tasks = "math,code",
    rungs: Rungs = "",
    limit: Limit = None,
    split: Split = "test",
    samples: Annotated[int, typer.Option(metavar="INTEGER", help="answers to each item")] = 1,
    rows: Rows = 1,
    out: Out = Path("runs/bundled"),
    model: ServedModel = None,
    endpoint: Endpoint = None,
    causal: Annotated[
        str | None, typer.Option(metavar="MODEL", help="a causal model, for a row of its own")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 1,
    workers: Workers = 2,
    quiet: Quiet = False,
) -> None:
    """Compare settings on the bundled tasks. An interrupted run continues where it was."""
    from dlm.evals.run import bundled_run
    from dlm.evals.settings import Setting, parse_setting

    at_least(1, limit=limit, samples=samples, rows=rows, threads=threads, workers=workers)
    server_alone(endpoint, causal, device=(device, "auto"), dtype=(dtype, "auto"))
    default = DEFAULT if endpoint is None else SERVED
    settings = [parse_setting(text) for text in config or default]
    if causal is not None:
        settings.append(Setting("autoregressive", causal=True))
    subset: dict[str, Any] = {"rungs": names("rungs", rungs), "limit": limit, "split": split}
    run = bundled_run(out, settings, tasks=tasks_of(tasks), samples=samples, rows=rows, **subset)
    more: dict[str, Any] = {"causal": causal, "quiet": quiet, "endpoint": endpoint}
    run_eval(run, model, (device, dtype), threads, workers, **more)


@app.command()
def strategies(
    sweeps: Annotated[
        str, typer.Option(metavar="NAME,...", help="families of settings (default: all)")
    ] = "",
    tasks: Tasks = "math,code,sudoku",
    rungs: Rungs = "",
    limit: Limit = None,
    split: Split = "dev",
    rows: Rows = 16,
    out: Out = Path("runs/strategies"),
    model: Model = "tiny",
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 1,
    workers: Workers = 2,
    quiet: Quiet = False,
) -> None:
    """Compare all decoding rules, each along the number that makes it commit more in a step."""
    from dlm.evals.run import bundled_run
    from dlm.evals.strategies import sweep_settings

    at_least(1, limit=limit, rows=rows, threads=threads, workers=workers)
    subset: dict[str, Any] = {"rungs": names("rungs", rungs), "limit": limit, "split": split}
    settings = sweep_settings(names("sweeps", sweeps))
    run = bundled_run(out, settings, tasks=tasks_of(tasks), rows=rows, **subset)
    run_eval(run, model, (device, dtype), threads, workers, quiet=quiet)


@app.command()
def caches(
    unmask: Annotated[str, typer.Option(metavar="PART", help="the rule of all")] = "threshold(0.9)",
    tasks: Tasks = "math,code,long",
    rungs: Rungs = "",
    limit: Limit = None,
    split: Split = "test",
    rows: Rows = 1,
    out: Out = Path("runs/caches"),
    model: Model = "tiny",
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 1,
    workers: Workers = 2,
    quiet: Quiet = False,
) -> None:
    """Compare all cache policies that suit a model with computing everything."""
    from dlm.evals.caches import cache_settings
    from dlm.evals.run import bundled_run

    at_least(1, limit=limit, rows=rows, threads=threads, workers=workers)
    of_tasks = tasks_of(tasks)
    subset: dict[str, Any] = {"rungs": names("rungs", rungs), "limit": limit, "split": split}
    settings = cache_settings(dlm.inspect(model).info.attention, unmask)
    run = bundled_run(out, settings, tasks=of_tasks, rows=rows, **subset)
    run_eval(run, model, (device, dtype), threads, workers, quiet=quiet)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="the folder of a run, or of several runs")],
    baseline: Annotated[
        str | None, typer.Option(metavar="NAME", help="the setting that others are compared to")
    ] = None,
    workers: Workers = 2,
    allow_unsafe_code: Unsafe = False,
) -> None:
    """Grade answers without a verdict and write the report again; needs no model.

    Over a folder of runs: all their tables and plots on one page.
    """
    from dlm.evals.graders import Judge, sandbox_for_code
    from dlm.evals.report import write_page
    from dlm.evals.run import runs_in

    at_least(1, workers=workers)
    folders = runs_in(folder)
    several = folders != [folder]
    lost: list[str] = []
    runs = list(_readable(folders, baseline, lost if several else None))
    results = []
    for run in runs:
        box = None
        if run.ungraded():
            if run.sandbox:
                box = sandbox_for_code(run.sandbox, allow_unsafe=allow_unsafe_code)
            run.grade(Judge(workers, box))
        results.append(tell_results(run, baseline, quiet=several))
    if several:
        print(write_page(results, folder, lost).read_text(encoding="utf-8"))


def _readable(folders: list[Path], baseline: str | None, lost: list[str] | None) -> list[Any]:
    """The runs of folders. Of several, those that cannot be read are reported and added to
    `lost`. Raises `InvalidRequest` for a baseline that one does not have, and if none is left.
    """
    from dlm.evals.results import check_baseline
    from dlm.evals.run import read_run

    runs = []
    for folder in folders:
        try:
            run = read_run(folder)
            run.ungraded()  # reads every file
        except InvalidRequest as error:
            if lost is None:
                raise
            typer.secho(f"left out: {error}", err=True)
            lost.append(error.message)
            continue
        check_baseline(run, baseline)
        runs.append(run)
    if not runs:
        raise InvalidRequest("run", "none of the runs can be read")
    return runs


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="the folder of a run")],
    second: Annotated[Path, typer.Argument(help="the folder of a run, which may be the same")],
    setting: Annotated[
        str | None, typer.Option(metavar="NAME", help="of the first run (default: its first)")
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="NAME", help="of the second run (default: its first)")
    ] = None,
) -> None:
    """Compare two runs item by item: the paired difference, and who alone is right."""
    from dlm.evals.comparing import compare_runs, comparison_table, describe_differences
    from dlm.evals.run import read_run

    runs = read_run(first), read_run(second)
    rows = compare_runs(runs, (setting, against))
    print("".join(f"{line}\n\n" for line in describe_differences(runs, (setting, against))), end="")
    print(comparison_table(rows), end="")


def tasks_of(text: str) -> list[str]:
    """The tasks of `--tasks`. Raises `InvalidRequest` for none, and for one named twice."""
    from dlm.evals.settings import listed

    return listed("tasks", text)
