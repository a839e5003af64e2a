"""An executor of search policies on a model whose joint distribution is known.

    found = search(Particles(8), Tabular(), reward, seed=3)

Every conditional is exact, so a row that commits one token a forward draws from the joint itself,
in any order. The canvas has two ids of a prompt before its six positions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import ceil, inf, nan, prod
from random import Random
from typing import Any

from dlm.core import Kind
from dlm.engine.generation import Generation
from dlm.engine.searching import Candidate
from dlm.engine.stats import Stats
from dlm.search import work
from dlm.search.executor import Finished
from dlm.search.frames import Frame
from dlm.search.policy import Policy, rng_of
from dlm.search.work import Advance, Branch, Complete, Drop, Point, Remask, Run, Score, Start
from tests.search.joint import LENGTH, VOCAB, Canvas, Reward, Tabular, put, uniform_of

PROMPT = (9, 8)
MASK = VOCAB
NO_STATS = Stats(0, LENGTH, 0, 0, 0, {}, {}, {}, 0.0)


@dataclass(frozen=True)
class Rule:
    """The rule of decoding: positions by `order` (`left`, `random`, `confident`), `tokens` a step.

    The order looks at the canvas alone, never at the tokens that were drawn.
    """

    order: str = "left"
    temperature: float = 1.0
    tokens: int = 1

    def changed(self, options: Mapping[str, Any]) -> Rule:
        """The rule with options of the engine: `temperature`, and an `unmask` that names an order.

        An `unmask` that names none decodes the most confident position first.
        """
        unmask = options.get("unmask")
        known = [order for order in ("left", "random") if order in str(unmask)]
        order = self.order if unmask is None else (*known, "confident")[0]
        return Rule(order, options.get("temperature", self.temperature), self.tokens)


@dataclass(eq=False)
class TableNode:
    """A `SearchNode` on the table.

    canvas: the six positions, None where open
    drawn: log-probabilities of each commit: at temperature 1, and as drawn
    before: the canvas before the last step (None: it has taken none since it was opened)
    """

    number: int
    parent: TableNode | None
    edge: int
    path: int
    rule: Rule
    canvas: Canvas
    drawn: dict[int, tuple[float, float]]
    nfe: int = 0
    depth: int = 0
    before: Canvas | None = None
    dropped: bool = False

    @property
    def done(self) -> bool:
        return None not in self.canvas

    @property
    def ids(self) -> tuple[int, ...]:
        return PROMPT + tuple(MASK if token is None else token for token in self.canvas)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        own = (Kind.MASK if token is None else Kind.COMMITTED for token in self.canvas)
        return (Kind.PROMPT,) * len(PROMPT) + tuple(own)

    @property
    def written(self) -> tuple[int, ...]:
        return tuple(at for at, kind in enumerate(self.kinds) if kind == Kind.COMMITTED)

    @property
    def tail(self) -> tuple[int, ...]:
        return ()

    @property
    def open(self) -> tuple[int, ...]:
        return tuple(at for at, kind in enumerate(self.kinds) if kind == Kind.MASK)

    @property
    def logprobs(self) -> tuple[float, ...]:
        return self._logs(0)

    @property
    def proposal_logprobs(self) -> tuple[float, ...]:
        return self._logs(1)

    def _logs(self, which: int) -> tuple[float, ...]:
        own = (self.drawn[at][which] if at in self.drawn else nan for at in range(LENGTH))
        return (nan,) * len(PROMPT) + tuple(own)


class OutOfBudget(Exception):
    """The forwards of a search are spent."""


@dataclass(eq=False)
class Table:
    """Executor, judge and `Context` of one search.

    forwards: those of all rows
    nodes, candidates: as in a search on an engine
    asked: answers that were judged, guesses too
    """

    model: Tabular
    reward: Reward
    seed: int = 0
    rule: Rule = field(default_factory=Rule)
    most: float = inf
    target: float = inf
    forwards: int = 0
    asked: int = 0
    best: Candidate | None = None
    free: bool = True
    nodes: list[TableNode] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)

    @property
    def settled(self) -> bool:
        return self.best is not None and self.best.score >= self.target

    @property
    def left(self) -> float:
        return self.most - self.forwards

    def rng(self, *key: int | str) -> Random:
        return rng_of(self.seed, key)

    def node(self, candidate: Candidate) -> TableNode:
        return self.nodes[candidate.node]

    def run(self, work: Run) -> Any:
        """The value that a generator of work items returns."""
        frame = Frame(Policy(), work, self, lambda item, _: self.judge(item))  # type: ignore[arg-type]
        frame.move()
        return frame.value

    def begin(self, item: Any) -> Finished:
        match item:
            case Start():
                return Finished(self._start(item))
            case Branch():
                return Finished(self._branch(item.node, item.edge))
            case Advance():
                return Finished(self._advance(item.node, item.until))
            case Remask():
                return Finished(self._remask(item.node, item.positions))
            case Complete():
                return Finished(self._complete(item.node, item.steps))
            case work.Guess():
                return Finished(self._guesses(item.node, item.count, item.without))
            case work.Reread():
                return Finished(self._reread(item.node, item.hidden))
            case Drop():
                item.node.dropped = True
                return Finished(None)
        raise TypeError(item)

    def judge(self, item: Score) -> Finished:
        given = item.answers or [answer_of(node.canvas) for node in item.nodes]
        self.asked += len(given)
        judged = zip(item.nodes, given, strict=True)
        return Finished([self._candidate(node, one, item.keep) for node, one in judged])

    def _candidate(self, node: Any, answer: Generation, keep: bool) -> Candidate:
        score, number = self.reward(answer.ids), len(self.candidates)
        made = Candidate(number, node.number, answer, score, nfe=self.forwards)
        if keep:
            self.candidates.append(made)
            if self.best is None or score > self.best.score:
                self.best = made
        return made

    def _start(self, item: Start) -> TableNode:
        canvas: Canvas = (None,) * LENGTH
        if item.canvas is not None:
            canvas = tuple(item.canvas) + (None,) * (LENGTH - len(item.canvas))
        path = hash((self.seed, item.edge)) & (2**62 - 1)
        return self._noted(None, item.edge, path, self.rule.changed(item.options), canvas, {}, 0)

    def _branch(self, one: TableNode, edge: int) -> TableNode:
        path = hash((one.path, edge)) & (2**62 - 1)
        made = self._noted(one, edge, path, one.rule, one.canvas, dict(one.drawn), one.nfe)
        made.before = one.before
        return made

    def _noted(self, parent: TableNode | None, edge: int, path: int, *state: Any) -> TableNode:
        depth = 0 if parent is None else parent.depth + 1
        assert parent is None or not parent.dropped, "a node was used after it had been let go"
        made = TableNode(len(self.nodes), parent, edge, path, *state, depth=depth)
        self.nodes.append(made)
        return made

    def _advance(self, one: TableNode, until: Point) -> TableNode:
        assert not one.dropped, "a node was used after it had been let go"
        most = inf if until.steps is None else one.nfe + until.steps
        blocks = inf if until.blocks is None else filled_blocks(one) + until.blocks
        share = -1.0 if until.open_ratio is None else until.open_ratio
        while (
            not one.done
            and one.nfe < most
            and filled_blocks(one) < blocks
            and one.canvas.count(None) > share * LENGTH
        ):
            self._step(one)
        return one

    def _step(self, one: TableNode) -> None:
        """One forward: draw all open positions, commit the first ones of the order."""
        if self.forwards >= self.most:
            raise OutOfBudget
        self.forwards += 1
        before, rule = one.canvas, one.rule
        for at in self._order(one)[: rule.tokens]:
            token, *logs = self.model.draw(
                before, at, uniform_of(one.path, at, one.nfe), rule.temperature
            )
            one.canvas = put(one.canvas, at, token)
            one.drawn[at] = (logs[0], logs[1])
        one.nfe, one.before = one.nfe + 1, before

    def _order(self, one: TableNode) -> list[int]:
        still = [at for at, token in enumerate(one.canvas) if token is None]
        if one.rule.order == "random":
            still.sort(key=lambda at: uniform_of(one.path + 1, at, one.nfe))
        elif one.rule.order == "confident":
            still.sort(key=lambda at: -max(self.model.probs(one.canvas, at)))
        return still

    def _remask(self, one: TableNode, positions: Sequence[int]) -> TableNode:
        for at in positions:
            own = at - len(PROMPT)
            assert one.canvas[own] is not None, f"{at} is open"
            one.canvas = put(one.canvas, own, None)
            del one.drawn[own]
        one.before = None
        return one

    def _reread(self, one: TableNode, hidden: Sequence[int]) -> tuple[float, ...]:
        self.forwards += 1
        logs = self.model.reread(one.canvas, [at - len(PROMPT) for at in hidden])
        return (0.0,) * len(PROMPT) + logs

    def _complete(self, one: TableNode, steps: int) -> Generation:
        if one.done:
            return answer_of(one.canvas)
        if not steps:
            return answer_of(one.canvas) if one.before is None else self._draft(one, one.before)
        rule = Rule("confident", one.rule.temperature, ceil(one.canvas.count(None) / steps))
        twin = self._noted(one, -1, one.path, rule, one.canvas, dict(one.drawn), one.nfe)
        return answer_of(self._advance(twin, Point()).canvas)

    def _guesses(
        self, one: TableNode, count: int, without: Collection[tuple[int, ...]]
    ) -> list[Generation]:
        """The likeliest products of the marginals before the last step."""
        if one.done or one.before is None:
            return [answer_of(one.canvas)]
        before, still = one.before, [at for at, token in enumerate(one.canvas) if token is None]
        probs = {at: self.model.probs(before, at) for at in still}

        def filled(tokens: Sequence[int]) -> Canvas:
            canvas = one.canvas
            for at, token in zip(still, tokens, strict=True):
                canvas = put(canvas, at, token)
            return canvas

        ways = sorted(
            product(range(VOCAB), repeat=len(still)),
            key=lambda way: -prod(probs[at][v] for at, v in zip(still, way, strict=True)),
        )
        whole = [answer_of(filled(way)) for way in ways]
        return [a for a in whole if not any(a.ids[: len(w)] == w for w in without)][:count]

    def _draft(self, one: TableNode, before: Canvas) -> Generation:
        """The answer with the tokens that the last step drew at the open positions."""
        canvas, logs = one.canvas, list(one.logprobs[len(PROMPT) :])
        for at in [at for at, token in enumerate(canvas) if token is None]:
            uniform = uniform_of(one.path, at, one.nfe - 1)
            token, logs[at], _ = self.model.draw(before, at, uniform, one.rule.temperature)
            canvas = put(canvas, at, token)
        return answer_of(canvas, logs)


def filled_blocks(one: TableNode) -> int:
    """Filled blocks of two positions."""
    return sum(None not in one.canvas[at : at + 2] for at in range(0, LENGTH, 2))


def answer_of(canvas: Canvas, logs: Sequence[float] = ()) -> Generation:
    """A canvas as an answer."""
    ids = tuple(MASK if token is None else token for token in canvas)
    text = "".join("abcd_"[token] for token in ids)
    return Generation(text, ids, "length", NO_STATS, PROMPT, PROMPT + ids, tuple(logs))


def search(policy: Policy, model: Tabular, reward: Reward, seed: int = 0, **more: Any) -> Table:
    """A search that has ended; its `answer` is what the policy returned."""
    table = Table(model, reward, seed, **more)
    try:
        table.answer = table.run(policy.run(table))  # type: ignore[attr-defined]
    except OutOfBudget:
        table.answer = table.best  # type: ignore[attr-defined]
    return table
