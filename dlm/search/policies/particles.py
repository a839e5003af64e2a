"""Sequential Monte Carlo over rows: weights, resampling, and the loop of particle policies."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from math import exp, fsum, inf, log
from random import Random
from typing import ClassVar, Literal, NamedTuple

from dlm.config.argument_types import check_fields
from dlm.config.checks import require_integer, require_number
from dlm.engine.searching import Candidate
from dlm.search.policy import Context, Policy
from dlm.search.work import END, Advance, Branch, Drop, Point, Run, Score, SearchNode, Start


@dataclass(frozen=True, slots=True)
class Particle:
    """A row with its part of the target.

    node: the row
    paid: the logarithm of the product of its potentials so far
    gain: the last of them
    state: a number that the potential carries on (None: none yet)
    answer: the judged answer of a row that has ended
    past: the particle that it comes from, one point earlier
    """

    node: SearchNode
    paid: float = 0.0
    gain: float = 0.0
    state: float | None = None
    answer: Candidate | None = None
    past: Particle | None = None

    def given(self, gain: float, state: float | None = None) -> Particle:
        """The particle after one more potential."""
        return replace(self, paid=self.paid + gain, gain=gain, state=state)


class Cloud(NamedTuple):
    """Particles that have come to their ends, or stand where a search was settled.

    particles: one a slot; slots may share a row
    logs: their log-weights
    evidence: the logarithm of the estimate of the target's constant, `Z` over that of the decoder
    nodes: the rows at all points, each once
    """

    particles: list[Particle]
    logs: list[float]
    evidence: float
    nodes: tuple[SearchNode, ...]


@dataclass(frozen=True, slots=True)
class Particles(Policy):
    """A policy that moves n rows side by side and resamples them by weights that it carries.

    n: rows
    segments: parts of the answer, by the share that is open; rows are weighed at the end of each
        (0: at the end of every block)
    ess: rows are resampled where the effective number of them is below this share of n
    pick: the answer: `best` has the highest score, `draw` is drawn by the weights, as a sample of
        the target
    sweeps: runs one after the other, until the search is settled
    parks: rows are left at every point, so that a later run can go on from there
    """

    n: int = 8
    segments: int = 4
    ess: float = 0.5
    pick: Literal["best", "draw"] = "best"
    sweeps: int = 1

    parks: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fields("search", self)
        require_integer("n", self.n, 1)
        require_integer("segments", self.segments, 0)
        require_number("ess", self.ess, low=0.0, high=1.0)
        require_integer("sweeps", self.sweeps, 1)

    @abstractmethod
    def weigh(self, swarm: Sequence[Particle]) -> Run:
        """The particles after the potentials of the point that they have come to."""

    def point(self, number: int) -> Point:
        """The point at which rows are weighed for the nth time, from 0."""
        return cut(self.segments, number)

    def run(self, search: Context) -> Run:
        """See `Policy`."""
        for sweep in range(self.sweeps):
            cloud = yield from self.filtered(search, sweep=sweep)
            if self.settled(search):
                break
        return search.best if self.pick == "best" else drawn(cloud, search.rng("pick")).answer

    def filtered(self, search: Context, reference: Sequence[Particle] = (), sweep: int = 0) -> Run:
        """Sequential Monte Carlo; returns a `Cloud`.

        `reference`, a lineage of an earlier run with a particle for each point, stays in slot 0
        through all resampling: conditional SMC (Andrieu et al. 2010, algorithm 2).
        """
        nodes = yield [Start(sweep * self.n + slot) for slot in range(bool(reference), self.n)]
        swarm = [*reference[:1], *map(Particle, nodes)]
        logs, evidence, edges = [0.0] * self.n, 0.0, count(sweep << 24)
        met = dict[int, SearchNode]()
        for number in count():
            swarm, gains = yield from self._moved(search, swarm, number, reference)
            logs = [a + b for a, b in zip(logs, gains, strict=True)]
            met |= {one.node.number: one.node for one in swarm}
            if all(one.node.done for one in swarm) or self.settled(search):
                break
            ancestors = list(range(self.n))
            if effective(logs) < self.ess * self.n:
                rng = search.rng("resample", sweep, number)
                ancestors = self.ancestors(shares(logs), rng, pinned=bool(reference))
                evidence, logs = evidence + log_mean_exp(logs), [0.0] * self.n
            swarm = yield from self._next(swarm, ancestors, edges, pinned=bool(reference))
        return Cloud(swarm, logs, evidence + log_mean_exp(logs), tuple(met.values()))

    def ancestors(self, weights: Sequence[float], rng: Random, *, pinned: bool) -> list[int]:
        """The slot that each slot goes on from."""
        return systematic(weights, rng.random())

    def settled(self, search: Context) -> bool:
        """True if no other answer is wanted."""
        return self.pick == "best" and search.settled

    def _moved(
        self,
        search: Context,
        swarm: Sequence[Particle],
        number: int,
        reference: Sequence[Particle],
    ) -> Run:
        """The particles at their next point, and the gain of each slot."""
        rows = [(slot, one) for slot, one in enumerate(swarm) if not one.node.done]
        rows = [(slot, one) for slot, one in rows if slot or not reference]
        yield [Advance(one.node, self.point(number)) for _, one in rows]
        ended = [one.node for _, one in rows if one.node.done]
        answers = iter((yield [Score(ended)])[0] if ended else ())
        judged = [replace(one, answer=next(answers)) if one.node.done else one for _, one in rows]
        weighed = judged if self.settled(search) else (yield from self.weigh(judged))
        after, gains = list(swarm), [0.0] * self.n
        for (slot, _), one in zip(rows, weighed, strict=True):
            after[slot], gains[slot] = one, one.gain
        if reference:
            after[0] = reference[min(number, len(reference) - 1)]
            gains[0] = after[0].gain if number < len(reference) else 0.0
        return after, gains

    def _next(
        self,
        swarm: Sequence[Particle],
        ancestors: Sequence[int],
        edges: Iterator[int],
        *,
        pinned: bool,
    ) -> Run:
        """The particles that go on: the first one of an ancestor is its row, others are forks."""
        taken, forks = set[int](), list[Branch]()
        after: list[Particle | None] = [None] * self.n
        for slot, ancestor in enumerate(ancestors):
            one = swarm[ancestor]
            goes_on = not self.parks and ancestor not in taken
            if one.node.done or goes_on or (pinned and not slot):
                after[slot] = one
            else:
                forks.append(Branch(one.node, next(edges)))
            taken.add(ancestor)
        children = iter((yield forks))
        lost = [] if self.parks else [one for slot, one in enumerate(swarm) if slot not in taken]
        yield [Drop(one.node) for one in lost if not one.node.done]
        made = zip(after, ancestors, strict=True)
        return [one or _child(swarm[up], next(children)) for one, up in made]


def _child(parent: Particle, node: SearchNode) -> Particle:
    return replace(parent, node=node, past=parent)


def cut(segments: int, number: int) -> Point:
    """The end of a segment of the canvas, from 0; with no segments the end of the next block."""
    if not segments:
        return Point(blocks=1)
    left = segments - 1 - number
    return Point(open_ratio=left / segments) if left > 0 else END


def drawn(cloud: Cloud, rng: Random) -> Particle:
    """A particle, drawn by the weights."""
    return rng.choices(cloud.particles, shares(cloud.logs))[0]


def shares(logs: Sequence[float]) -> list[float]:
    """Log-weights as weights that sum to 1; equal ones where all are zero."""
    highest = max(logs)
    if highest == -inf:
        return [1 / len(logs)] * len(logs)
    weights = [exp(value - highest) for value in logs]
    whole = fsum(weights)
    return [weight / whole for weight in weights]


def effective(logs: Sequence[float]) -> float:
    """The effective number of particles, `1 / sum of squared weights`."""
    return 1 / fsum(weight * weight for weight in shares(logs))


def log_mean_exp(logs: Sequence[float]) -> float:
    """The logarithm of the mean of exponentials."""
    highest = max(logs)
    if highest == -inf:
        return -inf
    return highest + log(fsum(exp(value - highest) for value in logs) / len(logs))


def systematic(weights: Sequence[float], uniform: float) -> list[int]:
    """Indices drawn by weights that sum to 1, from one uniform number; equal ones give each once.

    Systematic resampling (Kitagawa 1996): index i comes up `n * weights[i]` times, rounded down or
    up, and that many times in the mean.
    """
    n, slot, found, reached = len(weights), 0, list[int](), weights[0]
    last = max(index for index, weight in enumerate(weights) if weight)
    for number in range(n):
        while slot < last and reached * n <= number + uniform:
            slot += 1
            reached += weights[slot]
        found.append(slot)
    return found
