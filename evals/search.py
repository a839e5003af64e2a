"""Searches beside best-of-N at equal forwards: `python evals/search.py`.

Every method on 200 problems of four tasks with three seeds, and the verifiers by themselves. Writes
`evals/results/search`; the trials stay in `runs/search`, and a run that was interrupted goes on
from them. With `--split dev --limit 20 --seeds 1 --out FOLDER` it is a short run, of which the
processor time of the whole one can be told.
"""

from argparse import ArgumentParser
from pathlib import Path

import torch

import dlm
from dlm.evals.search.figures import figures_of
from dlm.evals.search.judges import write_judges
from dlm.evals.search.methods import MOST, default_methods, panel
from dlm.evals.search.problems import LADDERS
from dlm.evals.search.report import write_report
from dlm.evals.search.run import SearchRun

SAMPLER = "temperature=1.0, blocks=fixed(8), cache=dual"
RUNS = Path("runs/search")
OUT = Path(__file__).parent / "results" / "search"
ROWS = 256


def tell(task, method, trial):
    print(f"{task}, {method.name}, {trial.item}: {trial.nfe:g} forwards", flush=True)


def main():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default=",".join(LADDERS))
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--most", type=int, default=MOST, help="answers of the longest baseline")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the trials are kept")
    parser.add_argument("--out", type=Path, default=OUT, help="where the tables are written")
    given = parser.parse_args()
    torch.set_num_threads(1)
    engine = dlm.load("tiny", device="cpu", max_rows=ROWS)
    tasks, size = given.tasks.split(","), (given.split, given.limit)

    methods = {task: default_methods(task, SAMPLER, most=given.most) for task in tasks}
    run = SearchRun(given.runs, methods, *size, given.seeds, most=given.most)
    header = run.open(engine)
    run.draw(engine, tell)
    figures = [row for task in tasks for row in figures_of(run, task)]
    print(write_report(header, figures, run.seconds(), given.out))

    judges = {task: [panel(task, SAMPLER)] for task in tasks}
    alone = SearchRun(given.runs / "verifiers", judges, *size, at_once=16)
    header = alone.open(engine)
    print(write_judges(header, {task: alone.judge(engine, task) for task in tasks}, given.out))
    print(f"{(run.seconds() + alone.seconds()) / 60:.1f} minutes of processor time")


if __name__ == "__main__":
    main()
