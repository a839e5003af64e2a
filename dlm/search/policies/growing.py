"""Trees of half-filled canvases: rollouts, what is known of a state, and backup."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, isfinite, log, sqrt
from typing import Literal

from dlm.config.argument_types import check_fields
from dlm.config.checks import require_integer, require_number
from dlm.engine.searching import Candidate
from dlm.search.policies.particles import log_mean_exp
from dlm.search.policy import Context, Policy
from dlm.search.work import Advance, Branch, Point, Run, Score, SearchNode, Start

IDLE = 1000
"""Descents in a row that end at finished answers, before a search gives up to find new ones."""


@dataclass(slots=True, eq=False)
class State:
    """A state of the tree: a row that is parked at a point, or has ended.

    node: the row (None: the empty canvas before its first step)
    depth: points above it
    value: the score to be had from it, by the backup
    total: sum of the scores of its rollouts
    rolled: rollouts through it whose score is known
    visits: all rollouts through it
    given: numbers of the children that were asked for
    children: those that are there, by their number
    answer: the judged answer of a row that has ended
    closed: nothing new can come from it
    """

    node: SearchNode | None = None
    depth: int = 0
    value: float = -inf
    total: float = 0.0
    rolled: int = 0
    visits: int = 0
    given: set[int] = field(default_factory=set)
    children: dict[int, State] = field(default_factory=dict)
    answer: Candidate | None = None
    closed: bool = False

    @property
    def ended(self) -> bool:
        """True if the row has ended."""
        return self.node is not None and self.node.done


@dataclass(slots=True, eq=False)
class Rollout:
    """A way from the root to an answer, as far as it is known, and the number of its next child."""

    path: list[State]
    edge: int


@dataclass(slots=True, eq=False)
class Grown:
    """A tree.

    search: the search that grows it
    root: the empty canvas
    known: states by depth and canvas, where equal ones are to be one
    low, high: the lowest and the highest score seen
    descents: choices of a child so far
    """

    search: Context
    root: State = field(default_factory=State)
    known: dict[tuple[int, tuple[int, ...]], State] = field(default_factory=dict)
    low: float = inf
    high: float = -inf
    descents: int = 0

    @property
    def range(self) -> float:
        """The width of the scores; 1 where they do not differ."""
        return self.high - self.low if self.high > self.low else 1.0


@dataclass(frozen=True, slots=True)
class Growing(Policy):
    """A policy that grows a tree by rollouts.

    rollouts: answers that are decoded, at most
    segments: parts of the answer, by the share that is open; there is a state at the end of each
        (0: at the end of every block)
    backup: `soft`: exp(lam v) is the mean of those of the children; `mean` of the rollouts; `max`
    lam: the strength of the score in `soft`
    explore: the weight of the bonus for rare children, in ranges of the scores seen
    parallel: rollouts that set out together, before the score of any of them is known
    """

    rollouts: int = 16
    segments: int = 4
    backup: Literal["soft", "mean", "max"] = "soft"
    lam: float = 10.0
    explore: float = 0.3
    parallel: int = 2

    def __post_init__(self) -> None:
        check_fields("search", self)
        for name in ("rollouts", "parallel"):
            require_integer(name, getattr(self, name), 1)
        require_integer("segments", self.segments, 0)
        require_number("lam", self.lam, low=1e-6)
        require_number("explore", self.explore, low=0.0)

    @abstractmethod
    def new_edge(self, state: State) -> int | None:
        """The number of the next child that a state may have; None where it may have no other."""

    @abstractmethod
    def item(self, state: State, edge: int) -> Start | Branch:
        """The work that makes a child of a state."""

    @abstractmethod
    def until(self, state: State) -> Point:
        """The point at which the children of a state are parked."""

    def met(self, grown: Grown, state: State) -> State:
        """The state itself, or an equal one that is known; by default itself."""
        return state

    def choose(self, grown: Grown, state: State) -> State:
        """A child to go on from: the one with the highest value and bonus, of equals the first."""

        def promise(child: State) -> float:
            value = child.value if isfinite(child.value) else min(grown.low, 0.0)
            seldom = sqrt(log(state.visits + 1) / (child.visits + 1))
            return value + self.explore * grown.range * seldom

        return max((one for one in state.children.values() if not one.closed), key=promise)

    def settled(self, search: Context) -> bool:
        """True if no other answer is wanted."""
        return search.settled

    def grow(self, grown: Grown) -> Run:
        """Roll out until the answers asked for are there, or nothing new is to be found."""
        found = 0
        while found < self.rollouts and not self.settled(grown.search):
            going = list[Rollout]()
            for _ in range(min(self.parallel, self.rollouts - found)):
                if (rollout := self._descend(grown)) is None:
                    break
                going.append(rollout)
            if not going:
                return
            yield from self._decode(grown, going)
            for rollout in going:
                self._back_up(grown, rollout.path)
            found += len(going)

    def _descend(self, grown: Grown) -> Rollout | None:
        """A way to a state that may have another child; None where there is none."""
        for _ in range(IDLE):
            path = [grown.root]
            while not (state := path[-1]).ended:
                state.visits += 1
                grown.descents += 1
                if (edge := self.new_edge(state)) is not None:
                    state.given.add(edge)
                    return Rollout(path, edge)
                if not any(not child.closed for child in state.children.values()):
                    return None  # all of them are on their way, or known to the end
                path.append(self.choose(grown, state))
            state.visits += 1
            self._back_up(grown, path)
        return None

    def _decode(self, grown: Grown, going: Sequence[Rollout]) -> Run:
        """Decode rollouts to their ends, side by side, with a state at every point."""
        moving = list(going)
        while moving:
            nodes = yield [self.item(one.path[-1], one.edge) for one in moving]
            ways = zip(nodes, moving, strict=True)
            yield [Advance(node, self.until(one.path[-1])) for node, one in ways]
            for node, one in zip(nodes, moving, strict=True):
                self._join(grown, one, State(node, one.path[-1].depth + 1))
            ends = {one.path[-1]: None for one in moving if one.path[-1].ended}
            fresh = [state for state in ends if state.answer is None]
            rows = [state.node for state in fresh if state.node is not None]
            answers = (yield [Score(rows)])[0] if rows else ()
            for state, answer in zip(fresh, answers, strict=True):
                state.answer = answer
            moving = [one for one in moving if not one.path[-1].ended]

    def _join(self, grown: Grown, one: Rollout, child: State) -> None:
        """Hang a new state under the last one of a rollout, and follow what is known below it."""
        found = one.path[-1].children[one.edge] = self.met(grown, child)
        found.visits += 1
        one.path.append(found)
        while not found.ended and one.edge in found.children:
            found = found.children[one.edge]
            found.visits += 1
            one.path.append(found)
        if not found.ended:
            one.edge = self.first_edge(one.edge)
            found.given.add(one.edge)

    def first_edge(self, edge: int) -> int:
        """The number of the child by which a rollout goes on below a new one; by default 0."""
        return 0

    def _back_up(self, grown: Grown, path: Sequence[State]) -> None:
        """Tell all states of a way the score of the answer at its end."""
        answer = path[-1].answer
        assert answer is not None
        if isfinite(answer.score):
            grown.low, grown.high = min(grown.low, answer.score), max(grown.high, answer.score)
        score = answer.score if isfinite(answer.score) else min(grown.low, 0.0)
        for state in reversed(path):
            state.total, state.rolled = state.total + score, state.rolled + 1
            state.value = self._value(state)
            self.close(state)

    def close(self, state: State) -> None:
        """Mark a state that nothing new can come from; by default there is none."""

    def _value(self, state: State) -> float:
        """The value of a state after one more rollout."""
        if state.answer is not None:
            return state.answer.score
        if self.backup == "mean":
            return state.total / state.rolled
        values = [child.value for child in state.children.values() if child.rolled]
        if self.backup == "max":
            return max(values)
        return log_mean_exp([self.lam * value for value in values]) / self.lam
