"""Random programs over nodes: each row does as if it were alone, and nothing is lost or made up."""

from __future__ import annotations

import random
from typing import Any

import pytest

from dlm.core import Event, Kind
from dlm.core.canvas import replay
from dlm.engine.engine import Engine
from dlm.engine.node import Node
from dlm.errors import InvalidRequest, Unavailable
from tests.engine.test_nodes import CASES, PROMPT, Spy, asked, new_engine

Script = tuple[tuple[str, Any], ...]
"""The verbs that made a row what it is, those of its ancestors first."""
POINTS: tuple[dict[str, Any], ...] = (
    {"steps": 1},
    {"steps": 2},
    {"steps": 5},
    {"blocks": 1},
    {"open_ratio": 0.4},
    {},
)


def committed(node: Node) -> list[int]:
    return [at for at, kind in enumerate(node.kinds) if kind == Kind.COMMITTED]


def soil(engine: Engine) -> None:
    """Fill the pool with numbers that change results where somebody reads keys that nobody made."""
    store = engine.kv.store
    enlarge = store._enlarge

    def enlarged(pages: int) -> None:
        before = store.storage.shape[1]
        enlarge(pages)
        store.storage[:, before:] = 3.0

    store._enlarge = enlarged  # type: ignore[method-assign]
    store.storage.fill_(3.0)


def alone(case: str, seed: int, script: Script) -> tuple[tuple[int, ...], int]:
    """The canvas and the forwards of a row after its script, with nobody beside it."""
    options, changes = CASES[case]
    engine, _ = new_engine(changes)
    soil(engine)
    node = engine.start(PROMPT, **asked(options, temperature=0.8, seed=seed, max_new_tokens=24))
    for verb, argument in script:
        if verb == "resume":
            engine.resume(node, **argument)
        elif verb == "reopen":
            engine.reopen(node, argument)
        else:
            node = engine.fork(node, argument)
    return node.ids, node.nfe


class Storm:
    """Nodes of one engine, their scripts and events."""

    def __init__(self, case: str, seed: int) -> None:
        self.rng, self.case, self.seed = random.Random(seed), case, seed
        options, changes = CASES[case]
        page = 3 * 16 * 2**10
        self.engine, self.spy = new_engine(
            changes, max_rows=3, unroll=self.rng.choice((1, 3)), kv_bytes=60 * page
        )
        options = asked(options, temperature=0.8, seed=seed, max_new_tokens=24)
        root = self.engine.start(PROMPT, **options)
        self.nodes: list[tuple[Node, Script]] = [(root, ())]
        self.told: dict[int, list[Event]] = {}
        self.engine.submit(PROMPT[::-1], **{**options, "temperature": 0.0})

    def step(self) -> None:
        """One random verb on one or several nodes."""
        rng, engine = self.rng, self.engine
        at = rng.randrange(len(self.nodes))
        node, script = self.nodes[at]
        verb = rng.choice(("resume", "resume", "resume", "fork", "reopen", "complete", "close"))
        if verb == "resume":
            chosen = rng.sample(range(len(self.nodes)), rng.randint(1, len(self.nodes)))
            point = rng.choice(POINTS)
            going = [i for i in chosen if not self.nodes[i][0].done]
            engine.resume([self.nodes[i][0] for i in chosen], **point)
            for i in going:
                self.nodes[i] = self.nodes[i][0], (*self.nodes[i][1], ("resume", point))
        elif verb == "fork" and len(self.nodes) < 6:
            path = rng.randrange(4)
            try:
                self.nodes.append((engine.fork(node, path), (*script, ("fork", path))))
            except Unavailable:
                return
        elif verb == "reopen" and (filled := committed(node)):
            positions = sorted(rng.sample(filled, rng.randint(1, min(5, len(filled)))))
            engine.reopen(node, positions)
            self.nodes[at] = node, (*script, ("reopen", positions))
        elif verb == "complete":
            before = node.ids, node.kinds, node.nfe
            try:
                engine.complete(node, steps=rng.choice((0, 0, 1, 3)))
            except InvalidRequest:
                verbs = [verb for verb, _ in script]
                assert node.nfe == 0 or "reopen" in verbs
            assert (node.ids, node.kinds, node.nfe) == before
        elif verb == "close" and len(self.nodes) > 1:
            self.nodes.pop(at)[0].close()
        self.check()

    def check(self) -> None:
        self.engine.scheduler.check_integrity()
        for node, _ in self.nodes:
            events = self.told.setdefault(node.row, [])
            events += node.events()
            canvas = replay(events)[node.row]
            assert tuple(canvas.ids) == node.ids
            assert tuple(canvas.kinds) == node.kinds
            assert node.ids[: len(PROMPT)] == tuple(PROMPT)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES)
def test_rows_do_in_company_what_they_do_alone(case: str, seed: int) -> None:
    storm = Storm(case, seed)
    for _ in range(14):
        storm.step()
    for node, script in storm.nodes:
        assert (node.ids, node.nfe) == alone(case, seed, script), script
    for node, _ in storm.nodes:
        storm.engine.resume(node)
        assert node.done
        assert not node.open
        node.close()
    while storm.engine.live:
        storm.engine.step()
    assert storm.engine.kv.pages.in_use == 0


def test_every_forward_is_in_one_ledger() -> None:
    """What rows have paid themselves, in positions, is what the model has computed."""
    engine, spy = new_engine({})
    assert isinstance(engine, Engine)
    assert isinstance(spy, Spy)
    root = engine.start(PROMPT, **asked({"cache": "dual", "blocks": "fixed(16)"}))
    engine.resume(root, steps=3)
    paid = root._state.ledger.token_forwards
    twins = [engine.fork(root, path) for path in (1, 2)]
    engine.resume([root, *twins], steps=4)
    engine.reopen(twins[0], committed(twins[0])[:2])
    engine.resume([root, *twins])
    total = root._state.ledger.token_forwards
    total += sum(twin._state.ledger.token_forwards - paid for twin in twins)
    assert total == spy.positions
