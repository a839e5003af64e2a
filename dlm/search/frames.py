"""`Frame`: a policy at work, with the tasks that it waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import GeneratorType
from typing import Any

from dlm.search.executor import Decoding, Executor, Task
from dlm.search.work import Run, Score


class Frame:
    """A generator of work items, driven by `move`; searches within it are frames of their own.

    done: it has returned
    value: the value that it has returned
    """

    def __init__(self, run: Run, executor: Executor, judge: Callable[[Score], Task]) -> None:
        self._run, self._executor, self._judge = run, executor, judge
        self._tasks: list[Task | Frame] = []
        self._begun = False
        self.done, self.value = False, None

    @property
    def ready(self) -> bool:
        """True if it has returned."""
        return self.done

    def result(self) -> Any:
        """The value that it has returned."""
        return self.value

    def decoding(self) -> Iterator[Decoding]:
        """The nodes that have not come to their points, in an order that the policy alone sets."""
        for task in self._tasks:
            if isinstance(task, Frame):
                yield from task.decoding()
            elif isinstance(task, Decoding) and not task.ready:
                yield task

    @property
    def waits(self) -> bool:
        """True if something that is no decoding is not ready: a verdict."""
        return any(
            task.waits if isinstance(task, Frame) else not task.ready
            for task in self._tasks
            if not isinstance(task, Decoding)
        )

    def move(self) -> None:
        """Go on as far as that is possible without a step of the engine or a verdict."""
        while not self.done:
            for task in self._tasks:
                if isinstance(task, Frame):
                    task.move()
            if not all(task.ready for task in self._tasks):
                return
            results = [task.result() for task in self._tasks]
            self._tasks = []
            try:
                items = self._run.send(results) if self._begun else next(self._run)
            except StopIteration as end:
                self.done, self.value = True, end.value
            else:
                self._begun = True
                self._tasks = self._begin(items)

    def stop(self) -> None:
        """End the generator, and those within it."""
        for task in self._tasks:
            if isinstance(task, Frame):
                task.stop()
        self._tasks = []
        self._run.close()

    def _begin(self, items: Sequence[Any]) -> list[Task | Frame]:
        tasks: list[Task | Frame] = []
        for item in items:
            if isinstance(item, GeneratorType):
                tasks.append(Frame(item, self._executor, self._judge))
            else:
                judged = isinstance(item, Score)
                tasks.append(self._judge(item) if judged else self._executor.begin(item))
        return tasks
