"""`Dealer`: deals the forwards of a search out to its rows and to verdicts on its answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

from dlm.search.executor import Executor, Task
from dlm.search.frames import Frame, Place
from dlm.search.judging import Jury
from dlm.search.work import Score


@dataclass(slots=True)
class Awaiting:
    """Answers that are judged once it is known that their verdicts can be paid for.

    task: they are being judged, at this place in the work of the search
    """

    item: Score
    place: Place
    task: Task | None = None

    @property
    def ready(self) -> bool:
        """True if the verdicts are there."""
        return self.task is not None and self.task.ready

    def result(self) -> Any:
        """The candidates."""
        assert self.task is not None
        return self.task.result()


class Dealer:
    """Deals forwards out in rounds, where a search has a bound on them.

    A round begins when no row moves and no verdict is awaited: verdicts that cost forwards come
    first, in the order of their places, then rows, each of which takes a reserve from what is left,
    and one for its verdict; those that find none wait. So no answer depends on how rows are batched
    or how long a verifier takes, and the bound is kept.

    bound: forwards of the search (infinite: none)
    cost: forwards of one verdict at most
    dealt: the forwards that have been spent
    """

    def __init__(
        self, executor: Executor, jury: Jury, bound: float, cost: int, dealt: Callable[[], float]
    ) -> None:
        self._executor, self._jury, self._dealt = executor, jury, dealt
        self._bound, self._cost = bound, cost
        self._awaiting: list[Awaiting] = []
        self._spent, self._last = False, None  # type: tuple[bool, Task | None]

    @property
    def left(self) -> float:
        """Forwards that may still be spent; infinite without a bound."""
        return max(self._bound - self._dealt(), 0.0)

    def judge(self, item: Score, place: Place) -> Task:
        """Begin to judge answers, or let them wait for the next round."""
        if self._bound == inf or not self._cost:
            return self._jury(item, place)
        waiting = Awaiting(item, place)
        self._awaiting.append(waiting)
        return waiting

    def deal(self, frame: Frame) -> bool:
        """Let the rows and verdicts of a search go on; False if what is left pays for neither."""
        there = list(frame.decoding())
        if self._bound == inf:
            for task in there:
                if task.node.rests:
                    self._executor.go_on(task)
            return True
        if not all(task.node.rests for task in there):
            return True
        while True:
            if self._jury.waits:
                return True
            if self._spent:
                if self._last is not None:
                    self._last.result()  # becomes candidates
                return False
            frame.move()
            if self._awaiting:
                self._ask()
            elif not self._jury.waits:
                return self._deal_to_rows(frame)

    def _ask(self) -> None:
        """Begin to judge the answers that wait, as far as that can be paid for.

        Of the first item that cannot, a search without an answer judges as many as it can.
        """
        awaiting, self._awaiting = sorted(self._awaiting, key=lambda one: one.place), []
        left = self.left
        for one in awaiting:
            nodes = one.item.nodes
            paid = int(left // self._cost)
            if paid >= len(nodes):
                one.task = self._jury(one.item, one.place)
                left -= len(nodes) * self._cost
                continue
            self._spent = True
            if paid and self._jury.best is None:
                answers = one.item.answers and one.item.answers[:paid]
                self._last = self._jury(Score(nodes[:paid], answers), one.place)
            return

    def _deal_to_rows(self, frame: Frame) -> bool:
        """Let the nodes that rest before their points go on; False if there is nothing left.

        A first answer may take the forwards of its verdict too, where it needs them.
        """
        there, left, cost = list(frame.decoding()), int(self.left), self._cost
        judged = self._jury.best is not None
        if there and left <= (cost if judged else 0):
            return False
        for task in there:
            if not task.node.rests:
                continue  # two items wait for it
            first = task is there[0]
            most = left if first and not judged and left <= cost else left - cost
            if first or task.most <= most:
                reserve = min(task.most, most)
                self._executor.go_on(task, reserve)
                left -= reserve + cost
        return True
