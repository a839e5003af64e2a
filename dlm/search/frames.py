"""`Frame`: a policy at work, with the tasks that it waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import GeneratorType
from typing import Any, TypeAlias

from dlm.errors import blaming, rule_error, shown
from dlm.search.executor import Decoding, Executor, Task
from dlm.search.policy import Context, Policy
from dlm.search.work import Run, Score, Work

Place: TypeAlias = tuple[int, ...]
"""The place of an item in the work of a search: places are in the order in which items would be
done if each frame waited for the end of the one before it, so no batch changes them.
"""
Judge: TypeAlias = Callable[[Score, Place], Task]
"""Begins to judge the answers of an item at its place."""


def run_of(policy: Policy, search: Context) -> Run:
    """The work of a policy. Raises `RuleError` where its `run` is no generator."""
    run = policy.run(search)
    if not isinstance(run, GeneratorType):
        rule = "must be a generator, which yields lists of work items"
        raise rule_error("search", policy, "run", f"{rule}, got {shown(run)}")
    return (yield from run)


class Frame:
    """A generator of work items, driven by `move`; searches within it are frames of their own.

    done: it has returned
    value: the value that it has returned
    """

    def __init__(
        self, policy: Policy, run: Run, executor: Executor, judge: Judge, place: Place = ()
    ) -> None:
        self._policy, self._run, self._executor, self._judge = policy, run, executor, judge
        self._place, self._rounds = place, 0
        self._tasks: list[Task | Frame] = []
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
                with blaming("search", self._policy):
                    items = self._run.send(results) if self._rounds else next(self._run)
            except StopIteration as end:
                self.done, self.value = True, end.value
            else:
                self._tasks = self._begin(items)
                self._rounds += 1

    def stop(self) -> None:
        """End the generator, and those within it."""
        for task in self._tasks:
            if isinstance(task, Frame):
                task.stop()
            elif isinstance(task, Decoding):
                task.node.note_rest()
        self._tasks = []
        with blaming("search", self._policy):
            self._run.close()

    def _begin(self, items: Sequence[Any]) -> list[Task | Frame]:
        if not isinstance(items, Sequence):
            raise self._refused("lists of work items,", items)
        places = ((*self._place, self._rounds, number) for number in range(len(items)))
        return [self._task(item, place) for item, place in zip(items, places, strict=True)]

    def _task(self, item: Any, place: Place) -> Task | Frame:
        if isinstance(item, GeneratorType):
            return Frame(self._policy, item, self._executor, self._judge, place)
        if not isinstance(item, Work):
            raise self._refused("work items, and generators of them,", item)
        return self._judge(item, place) if isinstance(item, Score) else self._executor.begin(item)

    def _refused(self, rule: str, given: object) -> Exception:
        return rule_error("search", self._policy, "run", f"must yield {rule} got {shown(given)}")
