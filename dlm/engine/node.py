"""`Node`: a row that stands still between calls, to go on, fork, be reopened or completed.

The verbs are those of `Engine`: `start`, `resume`, `fork`, `reopen`, `complete`. A search is made
of them, and so is any program that looks at a half-filled canvas before it goes on.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Protocol, Self

from dlm.config import GenerationConfig
from dlm.config.checks import is_integer, require_integer, require_number
from dlm.config.infill import checked_infill
from dlm.core import Event, Kind, ModelInfo
from dlm.engine.binding import bind_request, given_ids, prompt_ids
from dlm.engine.generation import Generation, canvas_text, generation_of, log_of
from dlm.engine.live import Until
from dlm.engine.request import Driver, stop_watcher
from dlm.engine.row import RowState
from dlm.errors import InvalidRequest, shown
from dlm.text.prompts import Prompt

Canvas = str | Sequence[int | None]
"""A text with holes `[[mask:N]]`, or ids, None where the canvas is open."""


class Holder(Driver, Protocol):
    """The members of an engine that nodes use."""

    info: ModelInfo


class Node:
    """A row that is parked, or has ended, with its canvas, costs and events.

    It holds pages of the key/value pool while it is parked; `close`, leaving a `with` block, or
    letting it go gives them back.
    """

    def __init__(self, engine: Holder, state: RowState, rows: Iterator[int]) -> None:
        self._engine, self._state, self._rows = engine, state, rows
        weakref.finalize(self, engine.scheduler.discard, state)

    @property
    def ids(self) -> tuple[int, ...]:
        """The canvas, from the prompt to its last position."""
        return tuple(self._state.canvas.ids)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kind of each position of the canvas."""
        return tuple(self._state.canvas.kinds)

    @property
    def open(self) -> tuple[int, ...]:
        """The open positions of the canvas."""
        return tuple(at for at, kind in enumerate(self.kinds) if kind >= Kind.MASK)

    @property
    def row(self) -> int:
        """The number of the row in its events; every fork has its own."""
        return self._state.row

    @property
    def path(self) -> int:
        """The path of its random draws."""
        return self._state.path

    @property
    def done(self) -> bool:
        """True if the row has ended."""
        return self._state.done

    @property
    def parked(self) -> bool:
        """True if the row stands still before its end."""
        return self._state.parked

    @property
    def length(self) -> int:
        """The positions that its answer may take; the canvas of a block-causal model has more."""
        return self._state.bound.length

    @property
    def end_ids(self) -> Collection[int]:
        """The ids that end its answer."""
        return self._state.end_ids

    @property
    def nfe(self) -> int:
        """Forwards of the row, those of its ancestors included."""
        return self._state.ledger.nfe

    @property
    def token_forwards(self) -> int:
        """Positions computed for the row, those of its ancestors included."""
        return self._state.ledger.token_forwards

    @property
    def inherited(self) -> int:
        """The part of `nfe` that other rows have paid: ancestors, or one that shared a forward."""
        return self._state.ledger.inherited

    def counts(self) -> tuple[int, int, int]:
        """The counts `nfe`, `inherited` and `token_forwards`, of one moment."""
        ledger = self._state.ledger
        return ledger.nfe, ledger.inherited, ledger.token_forwards

    @property
    def logprobs(self) -> tuple[float, ...]:
        """Log-probability of each token at its commit, at temperature 1 over all ids, by position.

        NaN where a position is open or was given.
        """
        return tuple(map(log_of, self._state.canvas.conf))

    @property
    def proposal_logprobs(self) -> tuple[float, ...]:
        """Log-probability of each token in the distribution that it was drawn from, by position.

        That is tempered and filtered, without MASK; 0 where the most likely id was taken or a rule
        brought a token of its own. NaN where a position is open or was given.
        """
        return tuple(map(log_of, self._state.canvas.drawn))

    def text(self, mask: str = "_") -> str | None:
        """The text after the prompt, `mask` for each open position; None without a tokenizer."""
        return canvas_text(self._state, self._engine.text, mask)

    def events(self) -> list[Event]:
        """The events that nobody has taken yet."""
        mailbox, taken = self._state.events, []
        while mailbox:
            taken.append(mailbox.popleft())
        return taken

    def ignore_events(self, likely: int = 0) -> None:
        """Keep no events of the row and its forks, but `likely` ids a position for `guesses`."""
        self._state.events, self._state.keeps = None, likely

    def result(self) -> Generation:
        """The answer as it is now; its `finish_reason` is `parked` where the row goes on.

        Raises the error of a row that has failed.
        """
        if self._state.error is not None:
            raise self._state.error
        with self._engine.lock:
            found = generation_of(self._state, self._engine.text)
        return found if self.done else replace(found, finish_reason="parked")

    def raise_error(self) -> None:
        """Raise the error of a row that has failed, or found no room in the pool."""
        if error := self._state.error or self._state.no_room:
            raise error

    def close(self) -> None:
        """End the row and give its pages back. The canvas stays readable."""
        with self._engine.lock:
            self._engine.scheduler.abort(self._state)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start(
    engine: Holder, prompt: Prompt, canvas: Canvas | None, options: dict[str, Any], path: int = 0
) -> Node:
    """See `Engine.start`; the row draws along `path`."""
    named, committed = GenerationConfig.named(options), list[int | None]()
    if canvas is not None:
        if not isinstance(canvas, str | Sequence):
            raise InvalidRequest("canvas", f"must be a text or a list of ids, got {shown(canvas)}")
        if not isinstance(canvas, str) and not all(t is None or is_integer(t) for t in canvas):
            raise InvalidRequest("canvas", f"must hold ids, None where open, got {shown(canvas)}")
        checked = checked_infill(canvas, "canvas")
        committed = given_ids("canvas", checked, 0, engine.text, engine.info)
        if not committed:
            raise InvalidRequest("canvas", "must not be empty")
        if not isinstance(named.get("infill"), str):
            named.setdefault("max_new_tokens", len(committed))
    return start_config(engine, prompt, GenerationConfig(**named), committed, path)


def start_config(
    engine: Holder,
    prompt: Prompt,
    config: GenerationConfig,
    committed: Sequence[int | None],
    path: int = 0,
) -> Node:
    """A node of a checked config, before its first step."""
    if config.n != 1:
        raise InvalidRequest("n", f"must be 1: a node is one row, got {config.n}; fork it")
    bound = bind_request(config, engine.text, engine.info, committed)
    ids = prompt_ids(prompt, engine.text, engine.info, bound.pinned or bound.committed)
    rows = count()
    watch = stop_watcher(bound, engine.text)
    state = RowState(ids, bound, row=next(rows), path=path, watch=watch)
    with engine.lock:
        engine.scheduler.check(state)
        engine.scheduler.start(state)
    return Node(engine, state, rows)


def resume(
    engine: Holder,
    nodes: Node | Sequence[Node],
    steps: int | None,
    blocks: int | None,
    open_ratio: float | None,
) -> None:
    """See `Engine.resume`."""
    require_integer("steps", steps, 1, optional=True)
    require_integer("blocks", blocks, 1, optional=True)
    if open_ratio is not None:
        require_number("open_ratio", open_ratio, low=0.0, high=1.0)
    asked = [nodes] if isinstance(nodes, Node) else list(nodes)
    with engine.lock:
        for node in asked:
            require_rest(node)
            if node._state.error is not None:
                raise node._state.error
        going = list({node._state: node for node in asked if not node.done}.values())
        for node in going:
            go_on(engine, node, point_of(node, steps, blocks, open_ratio))
    while not all(node.parked or node.done for node in going):
        engine.step()
    for node in going:
        node.raise_error()


def point_of(node: Node, steps: int | None, blocks: int | None, open_ratio: float | None) -> Until:
    """The point that many steps or filled blocks further on, or at most that share open."""
    state = node._state
    return Until(
        None if steps is None else state.ledger.nfe + steps,
        None if blocks is None else state.filled_blocks + blocks,
        open_ratio,
    )


def has_reached(node: Node, until: Until) -> bool:
    """True if a row has come to a point; no row comes to `Until()` before its end."""
    return until.reached(node._state)


def go_on(engine: Holder, node: Node, until: Until) -> None:
    """Queue a parked row, which the engine's steps bring to a point; under the engine's lock."""
    engine.scheduler.resume(node._state, None if until == Until() else until)


def require_rest(node: object) -> None:
    """Raise `InvalidRequest` for what is no node, and while another thread decodes the row."""
    if not isinstance(node, Node):
        raise InvalidRequest("node", f"must be a node, as `start` gives it, got {shown(node)}")
    if not (node._state.parked or node._state.done):
        raise InvalidRequest("node", "must be parked or ended; another thread is decoding it")


def fork(engine: Holder, node: Node, path: int) -> Node:
    """See `Engine.fork`."""
    require_integer("path", path, 0, most=2**63 - 1)
    with engine.lock:
        require_rest(node)
        row = next(node._rows)
        child = engine.scheduler.fork(node._state, choice=0, row=row, path=path)
    return Node(engine, child, node._rows)


def reopen(engine: Holder, node: Node, positions: Iterable[int]) -> None:
    """See `Engine.reopen`."""
    with engine.lock:
        require_rest(node)
        if node._state.error is not None:
            raise InvalidRequest("node", f"has failed: {node._state.error}")
        if not isinstance(positions, Iterable) or isinstance(positions, str):
            raise InvalidRequest("positions", f"must be a list of integers, got {shown(positions)}")
        chosen = list(positions)
        for at in chosen:
            _require_committed(at, node.kinds)
        if chosen:
            engine.scheduler.reopen(node._state, sorted(set(chosen)))


def _require_committed(at: object, kinds: Sequence[Kind]) -> None:
    """Raise `InvalidRequest` unless `at` is a committed position of a canvas."""
    rule, given = f"must be positions of the canvas, 0 to {len(kinds) - 1}", shown(at)
    if is_integer(at) and 0 <= at < len(kinds):
        if kinds[at] == Kind.COMMITTED:
            return
        rule, given = "must be committed positions", f"{at}, which is {kinds[at].name}"
    raise InvalidRequest("positions", f"{rule}, got {given}")
