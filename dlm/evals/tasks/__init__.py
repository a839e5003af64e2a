"""The bundled tasks: endless generators of problems with program-checked answers."""

from dlm.evals.tasks.base import Example, Split, Task, split_of
from dlm.evals.tasks.mix import MIX, TASKS, get_task, sample

__all__ = ["MIX", "TASKS", "Example", "Split", "Task", "get_task", "sample", "split_of"]
