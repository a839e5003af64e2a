"""`dlm eval humaneval` and its like: published benchmarks by named protocols."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand

from dlm.cli.checks import at_least, files_known, percent, server_alone
from dlm.cli.evaluate import (
    Device,
    Dtype,
    Endpoint,
    Limit,
    Quiet,
    Rows,
    ServedModel,
    Threads,
    Unsafe,
    Workers,
    app,
)
from dlm.cli.stages import run_eval
from dlm.errors import InvalidRequest

__all__ = ["app"]

RUNS_CODE: Final = frozenset({"humaneval", "mbpp"})
HELP: Final = MappingProxyType(
    {
        "humaneval": "HumanEval: complete a function; graded by running its tests.",
        "mbpp": "MBPP: write a function; graded by running its tests.",
        "math500": "MATH-500: problems with the answer in a box.",
        "gsm8k": "GSM8K: word problems that end in one number.",
        "countdown": "Countdown: reach a number with three others.",
        "sudoku": "4x4 Sudoku: fill the empty cells.",
    }
)
"""Name of a benchmark -> its task and its grading."""


class BenchmarkCommand(TyperCommand):
    """A benchmark's command; its help ends with the protocols, which are imported for it alone."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help of the command."""
        from dlm.evals.benchmarks import BENCHMARKS

        names = ", ".join(BENCHMARKS[str(self.name)])
        self.epilog = f"Protocols: {names}. The first is the default."
        super().format_help(ctx, formatter)


def command(name: str) -> Callable[..., None]:
    """The command of one benchmark."""

    def run(
        protocol: Annotated[
            str | None, typer.Option(metavar="NAME", help="whose questions and grading")
        ] = None,
        model: ServedModel = None,
        endpoint: Endpoint = None,
        config: Annotated[
            list[str] | None,
            typer.Option(
                metavar="'NAME: OPTION=VALUE, ...'",
                help="decode like this, too; other options stay the protocol's",
            ),
        ] = None,
        sweep: Annotated[
            str,
            typer.Option(metavar="NUMBER,...", help="thresholds to commit at, one after the other"),
        ] = "",
        limit: Limit = None,
        samples: Annotated[int, typer.Option(metavar="INTEGER", help="answers to each item")] = 1,
        rows: Rows = 1,
        data_file: Annotated[
            Path | None, typer.Option(metavar="FILE", help="the benchmark's file of problems")
        ] = None,
        out: Annotated[
            Path | None, typer.Option(metavar="FOLDER", help="where the run is kept")
        ] = None,
        sandbox: Annotated[
            str, typer.Option(metavar="KIND", help="best, bwrap, unshare or rlimit")
        ] = "best",
        allow_unsafe_code: Unsafe = False,
        fail_under: Annotated[
            float | None,
            typer.Option(metavar="PERCENT", help="exit with 1 when fewer are right"),
        ] = None,
        device: Device = "auto",
        dtype: Dtype = "auto",
        threads: Threads = 1,
        workers: Workers = 2,
        quiet: Quiet = False,
    ) -> None:
        from dlm.evals.benchmarks import get_protocol
        from dlm.evals.graders import sandbox_for_code
        from dlm.evals.run import benchmark_run
        from dlm.evals.settings import numbers, parse_setting
        from dlm.evals.strategies import threshold_sweep

        at_least(1, limit=limit, samples=samples, rows=rows, threads=threads, workers=workers)
        percent("fail-under", fail_under)
        server_alone(endpoint, None, device=(device, "auto"), dtype=(dtype, "auto"))
        chosen = get_protocol(name, protocol)
        box = None
        if name not in RUNS_CODE and (sandbox != "best" or allow_unsafe_code):
            raise InvalidRequest("sandbox", f"is of benchmarks that run code, not of {name}")
        if name in RUNS_CODE:
            box = sandbox_for_code(sandbox, allow_unsafe=allow_unsafe_code)
        settings = [parse_setting(text) for text in config or ()]
        settings += threshold_sweep(chosen, numbers("sweep", sweep)) if sweep else []
        folder = out or Path("runs") / f"{name}-{chosen.name}"
        asked: dict[str, Any] = {"limit": limit, "file": data_file}
        asked["sandbox"] = "" if box is None else box.kind
        found = benchmark_run(folder, chosen, settings, samples=samples, rows=rows, **asked)
        where = device, dtype
        more: dict[str, Any] = {"endpoint": endpoint, "sandbox": box, "quiet": quiet}
        results = run_eval(found, model, where, threads, workers, **more)
        figures = results.figures
        reached = round(100 * figures[0].accuracy, 9) >= (fail_under or 0)  # False of NaN
        if not reached or any(row.unjudged for row in figures):
            raise typer.Exit(1)

    run.__doc__ = HELP[name]
    return run


@app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="files of problems; `all` for every one")],
) -> None:
    """Bring files of problems into the cache folder, once; their hashes are checked."""
    from dlm.evals.benchmarks.files import FILES
    from dlm.evals.benchmarks.files import fetch as bring

    wanted = list(FILES) if names == ["all"] else names
    files_known(wanted, list(FILES))
    for name in wanted:
        print(bring(name))


for benchmark in HELP:
    app.command(benchmark, cls=BenchmarkCommand)(command(benchmark))
