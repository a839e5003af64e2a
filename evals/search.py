"""Searches beside best-of-N at equal forwards: `python evals/search.py`.

Every method on 200 problems of four tasks with three seeds, and the verifiers by themselves. Writes
a folder `search-TASK` for each task into `evals/results`; the trials stay in `runs/search`, and a
run that was interrupted goes on from them. With `--split dev --limit 20 --seeds 1 --out FOLDER` it
is a short run, of which the processor time of the whole one can be told.
"""

from argparse import ArgumentParser
from pathlib import Path

import torch

import dlm
from dlm.evals.search.figures import all_figures
from dlm.evals.search.judges import write_judges
from dlm.evals.search.methods import (
    MOST,
    default_methods,
    panel,
    parse_method,
    with_sampler,
)
from dlm.evals.search.problems import LADDERS
from dlm.evals.search.report import write_report
from dlm.evals.search.run import SearchRun

RULE = "temperature=1.0, unmask=threshold(0.9)"
SAMPLERS = {
    "countdown": f"{RULE}, blocks=fixed(8), cache=dual",
    "sudoku": f"{RULE}, blocks=whole, cache=none",
    "code": f"{RULE}, blocks=fixed(16), cache=dual",
    "math": f"{RULE}, blocks=fixed(8), cache=dual",
}
"""Task -> the options that all methods share: of those tried on dev the best for `best_of`."""
FEW = {"code": 16, "math": 16}
"""Task -> answers of its longest baseline, where another number of them cannot help."""
ONLY = {
    "code": ["restart"],
    "math": ["temporal_vote"],
}
"""Task -> methods beside the baselines, where not all are drawn."""
OWN = {"code": ["neighbours: search=neighbours(rounds=1000, fraction=0.5)"]}
"""Task -> more methods, with the arguments that were best on other problems."""
JUDGES = {"code": ["tests", "confidence", "path_logprob", "path_entropy", "majority"]}
"""Task -> verifiers, where they are not those of the task."""
RUNS = Path("runs/search")
OUT = Path(__file__).parent / "results"
AT_ONCE = {"code": 24, "math": 24}
"""Task -> searches whose rows share forwards, where texts are long."""


def tell(task, method, trial):
    print(f"{task}, {method.name}, {trial.item}: {trial.nfe:g} forwards", flush=True)


def main():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default=",".join(LADDERS))
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the trials are kept")
    parser.add_argument("--out", type=Path, default=OUT, help="where the tables are written")
    given = parser.parse_args()
    torch.set_num_threads(1)
    engine = dlm.load("tiny", device="cpu", max_rows=256)
    tasks, size = given.tasks.split(","), (given.split, given.limit)

    for task in tasks:
        most, at_once = FEW.get(task, MOST), AT_ONCE.get(task, 96)
        built_in = default_methods(task, SAMPLERS[task], ONLY.get(task, ()), most=most)
        own = [with_sampler(parse_method(one), task, SAMPLERS[task]) for one in OWN.get(task, ())]
        methods = {task: [*built_in, *own]}
        run = SearchRun(given.runs / task, methods, *size, given.seeds, at_once, most)
        header = run.open(engine)
        run.draw(engine, tell)
        figures = all_figures(run, task)
        print(write_report(header, figures, run.seconds(), given.out / f"search-{task}"))
        judges = {task: [panel(task, SAMPLERS[task], JUDGES.get(task, ()))]}
        alone = SearchRun(given.runs / "verifiers" / task, judges, *size, at_once=16)
        header = alone.open(engine)
        judged = {task: alone.judge(engine, task)}
        print(write_judges(header, judged, given.out / f"search-{task}"))
        print(f"{(run.seconds() + alone.seconds()) / 60:.1f} minutes of processor time")


if __name__ == "__main__":
    main()
