"""`Executor`: does the work items of one search on the rows of an engine.

Every item becomes a task: it is ready at once, or when the rows it waits for have come to rest. The
engine's scheduler decodes the rows of all searches and requests together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from math import inf
from typing import Any, Protocol

from dlm.config import GenerationConfig
from dlm.engine import completing, guessing, node, rereading
from dlm.engine.generation import Generation
from dlm.engine.live import Until
from dlm.engine.node import Node
from dlm.engine.rereading import Reader
from dlm.errors import InvalidRequest, shown
from dlm.search.nodes import Hypothesis, RowCosts
from dlm.search.work import (
    Advance,
    Branch,
    Complete,
    Drop,
    Guess,
    Point,
    Remask,
    Reread,
    Start,
)
from dlm.text.prompts import Prompt

Verb = Start | Branch | Advance | Remask | Complete | Guess | Reread | Drop
"""The work items that an executor does; verdicts are the jury's."""


class Task(Protocol):
    """An item of work that has begun."""

    @property
    def ready(self) -> bool:
        """True if the result is there."""
        ...

    def result(self) -> Any:
        """The result. Raises the error of a row that has failed."""
        ...


@dataclass(frozen=True, slots=True)
class Finished:
    """A task that is ready at once; `value` is its result."""

    value: Any
    ready: bool = True

    def result(self) -> Any:
        """The result."""
        return self.value


@dataclass(slots=True)
class Decoding:
    """A node on its way to a point, which it may reach in several rounds.

    goal: the point
    fills: it fills a copy of another node, whose answer is the result
    """

    node: Hypothesis
    goal: Until
    fills: bool = False

    @property
    def ready(self) -> bool:
        """True if the row has come to its point, or its end."""
        one = self.node
        return one.rests and (one.done or node.has_reached(one.row, self.goal))

    @property
    def most(self) -> int:
        """Forwards that bring the row to its point, as a rule: one for each open position."""
        still_open = len(self.node.open) + 1
        return still_open if self.goal.nfe is None else self.goal.nfe - self.node.nfe

    def result(self) -> Any:
        """The node, or the answer of one that fills another."""
        self.node.row.raise_error()
        self.node.note("advance")
        if not self.fills:
            return self.node
        found = self.node.row.result()
        self.node.row.close()
        return found


class Executor:
    """Does the work items of one search, but for `Score`, on an engine whose lock is held.

    nodes: all nodes of the search
    costs: forwards that rows took part in since their making, those of them that another row was
        billed for, and positions; forwards over canvases as they were are among them
    launches: rounds of forwards: rows that take one together count once
    """

    def __init__(
        self,
        engine: Reader,
        prompt: Prompt,
        options: Mapping[str, Any],
        *,
        most_rows: int | None = None,
        trusted: bool = True,
    ) -> None:
        self._engine, self._prompt, self._options = engine, prompt, dict(options)
        self._most_rows, self._held = most_rows, list[Hypothesis]()
        self._trusted = trusted
        self._roots: dict[str, Node] = {}
        self.nodes: list[Hypothesis] = []
        self._moving: list[Hypothesis] = []
        self.costs, self.launches = RowCosts(), 0
        # what is wrong with the request is told before any work
        self._length = self.root(Start(0)).length

    def begin(self, item: Verb) -> Finished | Decoding:
        """Begin an item; a row that is to be decoded waits for `go_on`."""
        match item:
            case Start():
                return Finished(self._start(item))
            case Branch():
                return Finished(self._branch(self._own(item.node), item.edge))
            case Remask():
                return Finished(self._remask(self._own(item.node), item.positions))
            case Advance():
                return self._decoding(self._own(item.node), item.until)
            case Complete():
                return self._complete(self._own(item.node), item.steps)
            case Guess():
                row = self._own(item.node).row
                return Finished(guessing.guesses(self._engine, row, item.count, item.without))
            case Reread():
                return Finished(self._reread(self._own(item.node), item.hidden))
            case Drop():
                self._drop(self._own(item.node, gone=True))
                return Finished(None)

    def root(self, item: Start) -> Node:
        """A row before its first step that all starts of its kind are forks of."""
        key = repr((sorted(item.options.items()), item.canvas, item.feedback, item.likely))
        if key not in self._roots:
            if not self._trusted:
                check_strangers(item.options)
            options = {**self._options, **item.options}
            prompt = with_feedback(self._prompt, item.feedback)
            canvas = None if item.canvas is None else list(item.canvas)[: self._length]
            if canvas is not None:
                options.pop("start", None)
            self._roots[key] = root = node.start(self._engine, prompt, canvas, options)
            root.ignore_events(item.likely)
        return self._roots[key]

    def go_on(self, task: Decoding, forwards: float = inf) -> None:
        """Let a node that rests go on to its point, in at most this many forwards.

        Raises `Unavailable` where the pool had no room for the row.
        """
        task.node.row.raise_error()
        goal = task.goal
        if forwards < inf:
            most = task.node.nfe + int(forwards)
            goal = replace(goal, nfe=most if goal.nfe is None else min(goal.nfe, most))
        node.go_on(self._engine, task.node.row, goal)
        self._moving.append(task.node)

    @property
    def moves(self) -> bool:
        """True if a row is on its way."""
        return any(not one.rests for one in self._moving)

    def tally(self) -> bool:
        """Take note of the forwards of the rows that are on their way; True if one rests now."""
        gained, going = [one.gained() for one in self._moving], len(self._moving)
        self._moving = [one for one in self._moving if not one.rests]
        self.costs = RowCosts(*map(sum, zip(self.costs, *gained, strict=True)))
        self.launches += max((one.nfe for one in gained), default=0)
        return len(self._moving) < going

    def draft(self, one: Hypothesis) -> Generation:
        """The answer of a node with the tokens of its last step where it is open."""
        with suppress(InvalidRequest):  # that step left nothing open of what it read
            return completing.from_draft(self._engine, one.row)
        return one.row.result()

    def held(self) -> list[Hypothesis]:
        """The nodes whose rows are decoded or parked."""
        return [one for one in self._held if not one.done]

    def close(self) -> None:
        """End all rows and free their pages."""
        for one in self.held():
            one.row.close()
        for root in self._roots.values():
            root.close()

    def _start(self, item: Start) -> Hypothesis:
        row = node.fork(self._engine, self.root(item), item.edge)
        return self._noted(None, item.edge, row, "start")

    def _branch(self, parent: Hypothesis, edge: int) -> Hypothesis:
        row = node.fork(self._engine, parent.row, path_of(parent.row.path, edge))
        return self._noted(parent, edge, row, "branch")

    def _noted(self, parent: Hypothesis | None, edge: int, row: Node, verb: str) -> Hypothesis:
        made = Hypothesis(len(self.nodes), parent, edge, row)
        self._held = [*self.held(), made]
        if self._most_rows is not None and len(self._held) > self._most_rows:
            row.close()
            rule = f"must hold at most {self._most_rows} rows at a time here"
            raise InvalidRequest("search", f"{rule}: ask for fewer at once")
        made.note(verb)
        self.nodes.append(made)
        return made

    def _remask(self, one: Hypothesis, positions: Any) -> Hypothesis:
        node.reopen(self._engine, one.row, positions)
        one.note(f"remask {len(set(positions))}")
        return one

    def _decoding(self, one: Hypothesis, until: Point) -> Decoding:
        goal = node.point_of(one.row, until.steps, until.blocks, until.open_ratio)
        return Decoding(one, goal)

    def _complete(self, one: Hypothesis, steps: int) -> Finished | Decoding:
        if one.done or not steps:
            return Finished(one.row.result() if one.done else self.draft(one))
        row = completing.filling_twin(self._engine, one.row, steps)
        row.ignore_events()
        twin = self._noted(one, -1, row, "complete")
        return Decoding(twin, Until(), fills=True)

    def _reread(self, one: Hypothesis, hidden: Sequence[int]) -> tuple[float, ...]:
        logs = rereading.reread(self._engine, one.row, hidden)
        forwards, shared, positions = self.costs
        self.costs = RowCosts(forwards + 1, shared, positions + len(logs))
        self.launches += 1
        one.note(f"reread {len(hidden)}")
        return logs

    def _drop(self, one: Hypothesis) -> None:
        one.dropped |= not one.done
        one.row.close()
        one.note("drop")

    def _own(self, given: object, *, gone: bool = False) -> Hypothesis:
        """A node of this search; it may be `gone`.

        Raises `InvalidRequest` for what is none, and for a node that was dropped before its end.
        """
        known = self.nodes[given.number : given.number + 1] if isinstance(given, Hypothesis) else []
        if not (known and known[0] is given):
            raise InvalidRequest("search", f"works on nodes of its own alone, got {shown(given)}")
        if known[0].dropped and not gone:
            raise InvalidRequest("search", f"node {known[0].number} was dropped before its end")
        return known[0]


def check_strangers(options: Mapping[str, Any]) -> None:
    """Raise `InvalidRequest` for options that a stranger may not ask for.

    A policy may have made them of arguments: `unmaskfork` takes rules.
    """
    try:
        GenerationConfig.from_options(options, trusted=False)
    except InvalidRequest as error:
        raise InvalidRequest(f"search: {error.param}", error.message) from error


def path_of(parent: int, edge: int) -> int:
    """The path of the draws of a child: no two edges of a tree share one, but for chance."""
    digest = blake2b(f"{parent}/{edge}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def with_feedback(prompt: Prompt, feedback: str) -> Prompt:
    """The prompt with words of a verifier after it. Raises `InvalidRequest` for a prompt of ids."""
    if not feedback:
        return prompt
    if isinstance(prompt, str):
        return f"{prompt}\n{feedback}"
    if prompt and isinstance(prompt[0], Mapping):
        return [*prompt, {"role": "user", "content": feedback}]
    raise InvalidRequest("search", "feedback needs a prompt of text or messages, got ids")
