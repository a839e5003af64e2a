"""The answer of a parked row, filled at once or in a few cheap forwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dlm.config.checks import require_integer
from dlm.core import Event, Kind
from dlm.decode.top import Draft
from dlm.engine.generation import Generation, generation_of
from dlm.engine.node import Holder, Node, require_rest, resume, start_config
from dlm.errors import InvalidRequest


def complete(engine: Holder, node: Node, steps: int) -> Generation:
    """See `Engine.complete`."""
    require_integer("steps", steps, 0)
    require_rest(node)
    if node.done:
        return node.result()
    if not steps:
        return from_draft(engine, node)
    with filling_twin(engine, node, steps) as twin:
        resume(engine, twin, None, None, None)
        return twin.result()


def from_draft(engine: Holder, node: Node) -> Generation:
    """The answer with the tokens of the last step at the open positions that it has read."""
    drawn = engine.scheduler.draft(node._state)
    if not drawn:
        raise InvalidRequest(
            "steps", "must be at least 1 for a node that has taken no step since it was opened"
        )
    return filled(engine, node, {at: drawn[at] for at in node.open if at in drawn})


def filled(engine: Holder, node: Node, draft: Mapping[int, Draft]) -> Generation:
    """The answer of a parked row with these tokens at open positions."""
    twin = node._state.fork(choice=0, row=node.row, path=node.path)
    if draft:
        ids, conf, _ = zip(*draft.values(), strict=True)
        twin.emit(Event("commit", twin.row, twin.ledger.nfe, tuple(draft), ids, conf))
    twin.finish("length" if len(draft) == len(node.open) else "draft")
    with engine.lock:
        return generation_of(twin, engine.text)


def filling_twin(engine: Holder, node: Node, steps: int) -> Node:
    """A row that starts from the canvas of a parked one and fills it in `steps` forwards a block.

    Its counts go on from those of the row.
    """
    state, causal = node._state, engine.info.attention == "block_causal"
    length = engine.info.alignment if causal else len(node.ids)
    blocks = max(len({at // length for at in node.open}), 1)
    config = replace(
        state.bound.config,
        blocks=None if causal else "whole",
        unmask=f"topk(steps={steps * blocks})",
        edit="none",
        start=None,
        steps=None,
    )
    start_at = len(state.prompt)
    filled = (
        token if kind == Kind.COMMITTED else None
        for token, kind in zip(node.ids[start_at:], node.kinds[start_at:], strict=True)
    )
    twin = start_config(engine, state.prompt, config, list(filled)[: state.bound.length])
    twin._state.ledger, twin._state.path = state.ledger.fork(), state.path
    twin._state.most_steps += state.ledger.nfe
    return twin
