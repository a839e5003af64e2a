"""UnMaskFork: a tree whose moves are decoding rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dlm.search.policies.canvases import by_rule, canvas_of, check_rules
from dlm.search.policies.growing import Growing, Grown, State
from dlm.search.policies.particles import cut
from dlm.search.policy import Context
from dlm.search.work import Branch, Point, Run, Start

RULES = ("", "topk", 'topk(score="left")', 'topk(score="random")')


@dataclass(frozen=True, slots=True)
class UnMaskFork(Growing):
    """`unmaskfork(rollouts=...)`: grow a tree whose moves are decoding rules at temperature 0.

    A child is its parent decoded by one of the rules up to the next point; a rollout follows the
    rule of its first new child to the end. All random numbers are the same ones, so equal canvases
    are one state wherever they come up, and no state is decoded by the same rule twice. UnMaskFork
    (arXiv 2602.04344, section 3), with UCT; its moves may also be other models.

    A move starts a new row from the canvas, so it computes the keys of the prompt again, and the
    answer knows the likelihoods of its last moves alone: judge it by its text.

    rollouts, segments, backup, lam, explore, parallel: as in `tree`
    rules: values of `unmask`, empty for that of the request; the first of them is tried first
    """

    backup: Literal["soft", "mean", "max"] = "mean"
    parallel: int = 1
    rules: tuple[str, ...] = RULES

    tier = "T3"
    diverse = False

    def __post_init__(self) -> None:
        Growing.__post_init__(self)
        check_rules("rules", self.rules)

    def run(self, search: Context) -> Run:
        """See `Policy`."""
        yield from self.grow(Grown(search))
        return search.best

    def new_edge(self, state: State) -> int | None:
        """See `Growing`."""
        return next((edge for edge in range(len(self.rules)) if edge not in state.given), None)

    def first_edge(self, edge: int) -> int:
        """See `Growing`: the same rule."""
        return edge

    def item(self, state: State, edge: int) -> Start | Branch:
        """See `Growing`."""
        options = {"temperature": 0.0, **by_rule(self.rules[edge])}
        return Start(0, options, None if state.node is None else canvas_of(state.node))

    def until(self, state: State) -> Point:
        """See `Growing`."""
        return cut(self.segments, state.depth)

    def met(self, grown: Grown, state: State) -> State:
        """See `Growing`: equal canvases are one state."""
        assert state.node is not None
        depth = 0 if state.ended else state.depth
        return grown.known.setdefault((depth, state.node.ids), state)

    def close(self, state: State) -> None:
        """See `Growing`."""
        state.closed = state.answer is not None or (
            len(state.children) == len(self.rules)
            and all(child.closed for child in state.children.values())
        )
