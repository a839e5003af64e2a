"""The verbs of engines for rows that stand still between calls."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Sequence
from threading import RLock
from typing import Any

from dlm.core import ModelInfo
from dlm.engine import completing, guessing, node
from dlm.engine.generation import Generation
from dlm.engine.node import Canvas, Node
from dlm.engine.scheduler import Scheduler
from dlm.text import Text
from dlm.text.prompts import Prompt


class Parking:
    """Gives an engine the verbs `start`, `resume`, `fork`, `reopen`, `complete` and `guesses`."""

    info: ModelInfo
    text: Text | None
    scheduler: Scheduler
    lock: RLock

    @abstractmethod
    def step(self) -> None:
        """Advance every live row."""

    def start(self, prompt: Prompt, canvas: Canvas | None = None, **options: Any) -> Node:
        """A row that stands before its first step, with what `canvas` holds committed.

        `canvas`: a text with holes `[[mask:N]]` or ids with None where it is open, which begin the
        answer; rules may revise them, unlike those of `infill`. Committed blocks are denoised again
        only where an editor is asked for. `max_new_tokens` is the length of `canvas` by default.
        `options` and errors as in `submit`; `n` is 1.
        """
        return node.start(self, prompt, canvas, options)

    def resume(
        self,
        nodes: Node | Sequence[Node],
        *,
        steps: int | None = None,
        blocks: int | None = None,
        open_ratio: float | None = None,
    ) -> None:
        """Let parked rows go on, as one batch, and park each at the first point that it reaches.

        `steps`: after this many forwards; `blocks`: when this many blocks were filled;
        `open_ratio`: when at most this share of the answer is open, of its positions before the
        first end id that are not pinned. None of them: at its end. Raises the error of a row that
        fails, when all have come to rest.
        """
        node.resume(self, nodes, steps, blocks, open_ratio)

    def fork(self, parent: Node, path: int) -> Node:
        """A second row that stands as `parent` does and draws along `path` from here on.

        The same path repeats the parent's draws. Keys are shared until either row writes, and the
        next forward, computed once, where both take it in one call of `resume`. Raises
        `Unavailable` when the pool has no room for the fork's own.
        """
        return node.fork(self, parent, path)

    def reopen(self, parked: Node, positions: Iterable[int]) -> None:
        """Open committed positions of a row that is parked or has ended; it is parked then.

        `positions` count from the start of the canvas. Blocks open anew from the first of them on,
        and parts start afresh; keys that depend on a reopened position are computed again. A row
        that had ended opens what it had left open, too. Raises `InvalidRequest` for a position that
        is not committed, `Unavailable` when the pool has no room.
        """
        node.reopen(self, parked, positions)

    def complete(self, parked: Node, steps: int = 0) -> Generation:
        """The answer of a row if it is filled at once; the row itself stays as it is.

        `steps` 0: at no forward, with the tokens that its last step drew where it left positions
        open; what that step did not read stays empty, and `finish_reason` is `draft`. Otherwise in
        this many forwards, which commit the most confident positions of the whole rest (in
        block-causal models of each block).
        """
        return completing.complete(self, parked, steps)

    def guesses(
        self, parked: Node, count: int, without: Collection[tuple[int, ...]] = ()
    ) -> list[Generation]:
        """The `count` likeliest answers of a row if it is filled at once, the likeliest first.

        Positions are taken to be independent, with the probabilities that the last step read; so
        the row must have been started with `top_logprobs` of at least 2, and its answers are made
        of that many ids a position. They take no forward, and differ up to their end ids. Those
        that begin with one of `without` are left out. Only that many times 64 fillings are looked
        at, so there may be fewer. A row that has ended, or has read nothing that is open since, has
        one answer. Raises `InvalidRequest` for a row without `top_logprobs`.
        """
        return guessing.guesses(self, parked, count, without)
