"""The mix of tasks that the bundled checkpoints are trained on."""

from __future__ import annotations

from random import Random
from typing import Final

from dlm.errors import unknown_name
from dlm.evals.tasks.base import Example, Split, Task, split_of
from dlm.evals.tasks.code import Code
from dlm.evals.tasks.countdown import Countdown
from dlm.evals.tasks.drill import Drill
from dlm.evals.tasks.formats import Format
from dlm.evals.tasks.judge import Judge
from dlm.evals.tasks.long import Long
from dlm.evals.tasks.math import Math
from dlm.evals.tasks.sudoku import Sudoku

# By examples, not by tokens: one of `long` costs as many tokens as three others.
MIX: Final[tuple[tuple[Task, float], ...]] = (
    (Math(), 0.27),
    (Drill(), 0.19),
    (Code(), 0.11),
    (Countdown(), 0.09),
    (Format(), 0.10),
    (Sudoku(), 0.04),
    (Judge(), 0.10),
    (Long(), 0.10),
)
TASKS: Final = tuple(task.name for task, _ in MIX)


def get_task(name: str) -> Task:
    """The task of that name; an unknown name is an `InvalidRequest` that lists the known ones."""
    for task, _ in MIX:
        if task.name == name:
            return task
    raise unknown_name("task", name, TASKS)


def sample(rng: Random, split: Split, task: str | None = None) -> Example:
    """Draw an example of a split, from one task or (None) from the training mix.

    A held-out example of the mix comes from a task drawn by weight, not by how many of its
    structures are held out: the task is drawn first, then examples until one is of the split.
    """
    if task is None:
        (chosen,) = rng.choices([t for t, _ in MIX], weights=[weight for _, weight in MIX])
    else:
        chosen = get_task(task)
    while True:
        example = chosen.make(rng)
        if split_of(example.key) == split:
            return example
