"""Rows that are equal but for their path take their next forward together: it is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dlm.cache.block_freeze import NoCache
from dlm.config import KINDS
from dlm.core import Kind
from dlm.decode import iteration, planning
from dlm.decode.leaders import leaders_of
from dlm.engine.engine import Engine
from dlm.engine.node import Node
from dlm.engine.stats import Ledger
from dlm.errors import InvalidRequest
from dlm.unmasking.edit.wino import NarrowOut
from dlm.unmasking.unmask.guided import Guided
from dlm.unmasking.unmask.wide_in import WideIn
from tests.engine.harness import info_of
from tests.engine.test_auxiliary import auxiliary, causal
from tests.engine.test_nodes import CASES, CAUSAL, PROMPT, asked
from tests.helpers import random_decoder, tiny_spec

WIDE: dict[str, Any] = {"cache": "dual", "blocks": "fixed(16)"}
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    **CASES,
    "whole": ({"blocks": "whole", "unmask": "threshold(0.3)"}, {}),
    "shifted": (WIDE, {"shift": True}),
    "shifted, two arms": ({**WIDE, "guide": "cfg(0.5)"}, {"shift": True}),
    "shifted block-causal": ({}, {**CAUSAL, "shift": True}),
    "shadows": ({"unmask": WideIn(0.1), "edit": NarrowOut(0.3), "cache": "none"}, {}),
    "shadows, two arms": (
        {"unmask": WideIn(0.1), "edit": NarrowOut(0.3), "cache": "dual", "guide": "cfg(0.5)"},
        {},
    ),
    "noise": ({"unmask": "topk", "blocks": "whole"}, {"mask_id": None}),
    "most likely ids": ({"top_logprobs": 3}, {}),
}
PATHS = range(8)


class Spy:
    """A decoder that notes the positions of each forward."""

    def __init__(self, decoder: Any) -> None:
        self.decoder, self.sizes = decoder, list[int]()

    def __call__(self, packed: Any, kv: Any) -> torch.Tensor:
        self.sizes.append(len(packed.ids))
        found: torch.Tensor = self.decoder(packed, kv)
        return found


def new_engine(changes: dict[str, Any], **options: Any) -> tuple[Engine, Spy]:
    spec = tiny_spec(**changes)
    info = info_of(replace(spec, mask_id=spec.mask_id or 0))
    if spec.mask_id is None:
        info = replace(info, mask_id=None)
    engine = Engine(random_decoder(spec, 1), info, **options)
    engine.manager.model = spy = Spy(engine.model)
    return engine, spy


def committed(node: Node) -> list[int]:
    return [at for at, kind in enumerate(node.kinds) if kind == Kind.COMMITTED]


def forks(engine: Engine, when: str, options: dict[str, Any], paths: Sequence[int]) -> list[Node]:
    """Forks of one row, at some point of its way, of which the row itself is closed."""
    node = engine.start(PROMPT, **options)
    if when != "fresh":
        engine.resume(node, **({"steps": 3} if "parked" in when else {}))
    found = [engine.fork(node, path) for path in paths]
    if "reopened" in when:
        for fork in found:
            engine.reopen(fork, committed(fork)[1::2])
    node.close()
    return found


def go_on(engine: Engine, nodes: Sequence[Node], steps: int | None = None) -> None:
    """Let parked rows take some steps, or all, without being parked in between."""
    for node in nodes:
        if node._state.parked:
            engine.scheduler.resume(node._state)
    while not all(node.done for node in nodes) and steps != 0:
        engine.step()
        engine.scheduler.check_integrity()
        steps = None if steps is None else steps - 1


@dataclass
class Way:
    """A row's way by itself: its canvas, its forwards, and the positions of each of them."""

    ids: tuple[int, ...]
    nfe: int
    sizes: list[int]
    ledger: Ledger


def alone(
    changes: dict[str, Any], when: str, options: dict[str, Any], paths: Sequence[int]
) -> list[Way]:
    engine, spy = new_engine(changes)
    ways = []
    for node in forks(engine, when, options, paths):
        before = len(spy.sizes)
        engine.resume(node)
        ways.append(Way(node.ids, node.nfe, spy.sizes[before:], node._state.ledger))
    return ways


def check_together(
    changes: dict[str, Any], when: str, options: dict[str, Any], paths: Sequence[int], **more: Any
) -> None:
    """Forks that go on together do as they would alone, and pay their first forward once."""
    ways = alone(changes, when, options, paths)
    engine, spy = new_engine(changes, **more)
    nodes = forks(engine, when, options, paths)
    begun, start = [replace(node._state.ledger) for node in nodes], len(spy.sizes)
    go_on(engine, nodes, 1)
    first, rest = spy.sizes[start:], len(spy.sizes)
    go_on(engine, nodes)
    assert [node.ids for node in nodes] == [way.ids for way in ways]
    assert [node.nfe for node in nodes] == [way.nfe for way in ways]
    assert first == [ways[0].sizes[0]], "one row is computed"
    if rest < len(spy.sizes):
        assert spy.sizes[rest] == sum(way.sizes[1] for way in ways if len(way.sizes) > 1), "all are"
    ledgers = [node._state.ledger for node in nodes]
    followers = len(paths) - 1
    assert [ledger.forwards["shared"] for ledger in ledgers] == [0] + [1] * followers
    paid = sum(node.nfe - node.inherited for node in nodes)
    assert paid == sum(len(way.sizes) for way in ways) - followers
    spent = sum(a.token_forwards - b.token_forwards for a, b in zip(ledgers, begun, strict=True))
    assert spent == sum(spy.sizes[start:])
    for ledger, way in zip(ledgers, ways, strict=True):
        assert ledger.nfe == sum(ledger.forwards.values())
        assert ledger.staleness == way.ledger.staleness
        assert ledger.changes == way.ledger.changes
    arms = [way.ledger.arm_forwards for way in ways]
    one = int("cfg" in str(options.get("guide")))
    assert [ledger.arm_forwards for ledger in ledgers] == [arms[0], *(n - one for n in arms[1:])]
    assert engine.kv.pages.in_use == 0


@pytest.mark.parametrize("when", ["fresh", "parked", "reopened parked", "reopened"])
@pytest.mark.parametrize("case", ROWS)
def test_forks_share_their_next_forward(case: str, when: str) -> None:
    options, changes = ROWS[case]
    if case == "noise" and "reopened" in when:
        return  # see below
    options = asked(options, temperature=1.0, max_new_tokens=20)
    check_together(changes, when, options, PATHS[:3], unroll=1 + 3 * (when == "parked"))


@pytest.mark.parametrize("changes", [{}, {"shift": True}, CAUSAL], ids=str)
@pytest.mark.parametrize("cache", KINDS["cache"].names())
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_cache_policy(cache: str, changes: dict[str, Any], temperature: float) -> None:
    engine, _ = new_engine(changes)
    options = asked({"cache": cache}, temperature=temperature, max_new_tokens=12)
    try:
        engine.start(PROMPT, **options).close()
    except InvalidRequest:
        return  # it does not suit the model
    check_together(changes, "fresh", options, PATHS[:4])
    if temperature:
        check_together(changes, "parked", options, PATHS[:3])


@pytest.mark.parametrize("case", ["dual", "block-causal", "shifted, two arms"])
def test_one_attention_call_for_runs_of_any_shape(case: str, monkeypatch: Any) -> None:
    """As flash attention on CUDA serves them; on the CPU each run is a call."""
    monkeypatch.setattr(planning, "takes_ragged", lambda storage: True)
    options, changes = ROWS[case]
    check_together(changes, "fresh", asked(options, temperature=1.0, max_new_tokens=24), PATHS[:3])


def test_forks_of_several_rows_in_one_forward() -> None:
    """Groups of other parts, with two inputs, with shadows, and rows that nobody follows."""
    cases = ["dual", "two arms", "shadows, two arms", "no cache", "row editor"]
    kinds = [asked(ROWS[case][0], temperature=1.0, seed=n) for n, case in enumerate(cases)]
    ways = [way for options in kinds for way in alone({}, "fresh", options, PATHS[:3])]
    engine, spy = new_engine({})
    families = [forks(engine, "fresh", options, PATHS[:3]) for options in kinds]
    nodes = [node for family in zip(*families, strict=True) for node in family]
    go_on(engine, nodes, 1)
    assert spy.sizes == [sum(way.sizes[0] for way in ways[::3])]
    go_on(engine, nodes)
    assert [node.ids for family in families for node in family] == [way.ids for way in ways]
    assert sum(node.nfe - node.inherited for node in nodes) == sum(
        len(way.sizes) for way in ways
    ) - 2 * len(cases)
    assert engine.kv.pages.in_use == 0


def test_auxiliary_models_read_for_each_row() -> None:
    found = []
    for together in (False, True):
        helper = auxiliary(causal(3))
        engine, spy = new_engine({}, aux={"ar": helper})
        options = asked({"unmask": Guided(0.05), "cache": "none"}, temperature=1.0)
        nodes = forks(engine, "fresh", options, range(3))
        if together:
            engine.resume(nodes, steps=1)
            assert spy.sizes == [len(nodes[0].ids)]
            assert [node._state.ledger.aux_forwards["ar"] for node in nodes] == [1, 1, 1]
        for node in [] if together else nodes:
            engine.resume(node)
        engine.resume(nodes)
        costs = [node._state.ledger for node in nodes]
        assert helper.model.tokens == sum(own.aux_tokens["ar"] for own in costs)
        found.append([(node.ids, own.aux_tokens) for node, own in zip(nodes, costs, strict=True)])
        assert helper.kv.pages.in_use == engine.kv.pages.in_use == 0
    assert found[0] == found[1]


def test_a_row_that_has_gone_on_follows_nobody() -> None:
    engine, spy = new_engine({})
    parent = engine.start(PROMPT, **asked({}, temperature=1.0))
    engine.resume(parent, steps=3)
    early = engine.fork(parent, 1)
    engine.resume(early, steps=1)
    late = engine.fork(parent, 2)
    whole = len(parent.ids)
    for expected in (2 * whole, 3 * whole):
        engine.resume([early, parent, late], steps=1)
        assert spy.sizes[-1] == expected
    assert [node.inherited for node in (parent, early, late)] == [0, 3, 4]
    assert (parent.nfe, early.nfe, late.nfe) == (5, 6, 5)


def test_rows_that_are_reopened_differently_follow_nobody() -> None:
    engine, spy = new_engine({})
    parent = engine.start(PROMPT, **asked({}, temperature=1.0))
    engine.resume(parent)
    nodes = [engine.fork(parent, path) for path in range(5)]
    for node, chosen in zip(nodes, ([9, 12], [9], [12, 9, 9], [9], [9]), strict=True):
        engine.reopen(node, chosen)
    engine.reopen(nodes[4], [12])
    engine.resume(nodes, steps=1)
    assert spy.sizes[-1] == 3 * len(parent.ids)
    assert [node._state.ledger.forwards["shared"] for node in nodes] == [0, 0, 1, 1, 0]


def test_noise_of_their_own_parts_forks() -> None:
    """A uniform process opens positions with tokens that depend on the path."""
    options = asked(ROWS["noise"][0], temperature=1.0)
    engine, spy = new_engine({"mask_id": None})
    nodes = forks(engine, "reopened", options, (1, 2, 1))
    assert nodes[0].ids == nodes[2].ids != nodes[1].ids
    engine.resume(nodes, steps=1)
    assert spy.sizes[-1] == 2 * len(nodes[0].ids)


def test_a_closed_row_that_is_reopened_has_no_keys_as_its_forks_have() -> None:
    options, changes = asked({**WIDE}, temperature=1.0), dict[str, Any]()
    engine, _ = new_engine(changes)
    parent = engine.start(PROMPT, **options)
    engine.resume(parent, steps=5)
    child = engine.fork(parent, 0)
    parent.close()
    chosen = committed(parent)[:2]
    for node in (parent, child):
        engine.reopen(node, chosen)
    engine.resume([parent, child])
    assert parent._state.ledger.forwards["shared"] == child._state.ledger.forwards["shared"] == 0


@pytest.mark.parametrize("leader", [True, False])
def test_forks_that_end_before_their_forward_leave_nothing_behind(leader: bool) -> None:
    (way,) = alone({}, "parked", asked(WIDE, temperature=1.0), (2,))
    engine, spy = new_engine({})
    nodes = forks(engine, "parked", asked(WIDE, temperature=1.0), (1, 2, 3))
    gone = nodes.pop(0 if leader else 2)
    for node in (*nodes, gone):
        engine.scheduler.resume(node._state)
    gone.close()
    engine.step()
    engine.scheduler.check_integrity()
    assert spy.sizes[-1] == way.sizes[0]
    assert sorted(node._state.ledger.forwards["shared"] for node in nodes) == [0, 1]
    go_on(engine, nodes)
    assert nodes[0 if leader else 1].ids == way.ids
    assert engine.kv.pages.in_use == 0


def test_a_forward_that_fails_is_tried_row_by_row() -> None:
    options = asked(WIDE, temperature=1.0)
    ways = alone({}, "fresh", options, PATHS)
    engine, spy = new_engine({})
    nodes = forks(engine, "fresh", options, PATHS)

    def full(packed: Any, kv: Any) -> torch.Tensor:
        engine.manager.model = spy
        raise MemoryError

    engine.manager.model = full
    engine.resume(nodes)
    assert [node.ids for node in nodes] == [way.ids for way in ways]
    assert sum(node.nfe - node.inherited for node in nodes) == sum(way.nfe for way in ways)


@pytest.mark.parametrize("most", [40, 80, 120])
def test_no_forward_is_larger_than_its_bound(most: int) -> None:
    options = asked({"cache": "none"}, temperature=1.0)
    ways = alone({}, "fresh", options, PATHS)
    engine, spy = new_engine({}, max_token_forwards=most)
    node = engine.start(PROMPT, **options)
    others = [engine.start(PROMPT, **{**options, "seed": seed}) for seed in (1, 2, 3)]
    nodes = [engine.fork(node, path) for path in PATHS]
    engine.resume([others[0], *nodes[:4], others[1], *nodes[4:], others[2]], steps=1)
    assert sum(spy.sizes) <= 37 * (4 if most == 120 else 6)
    engine.resume(nodes)
    assert max(spy.sizes) <= most
    assert [node.ids for node in nodes] == [way.ids for way in ways]


@dataclass(frozen=True)
class Moody(NoCache):
    """A policy that looks at the path of a row: on odd ones it predicts no more than is open."""

    def plan(self, rows: Any) -> Any:
        plan = super().plan(rows)
        segments = tuple(
            s._replace(predict=s.predict[:-1]) if int(rows.path[s.row]) % 2 else s
            for s in plan.segments
        )
        return replace(plan, segments=segments)


def test_a_policy_that_looks_at_the_path_parts_forks() -> None:
    options = asked({"cache": Moody(), "blocks": "whole"}, temperature=1.0)
    engine, spy = new_engine({})
    nodes = forks(engine, "fresh", options, range(4))
    engine.resume(nodes, steps=1)
    assert spy.sizes == [3 * len(nodes[0].ids)], "followers are compared with their leader alone"
    assert [node._state.ledger.forwards["shared"] for node in nodes] == [0, 0, 1, 0]


def test_leaders() -> None:
    assert leaders_of([(), (), ()]) is None
    assert leaders_of([(1,), (), (2,), (1, (3,), (4,))]) is None
    assert leaders_of([(), (1,), (2,), (), (1,), (2,), (1,)]) == (0, 1, 2, 3, 1, 2, 1)


class Operations(TorchDispatchMode):
    """Counts operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("case", ["no cache", "dual", "two arms", "block-causal"])
def test_rows_of_their_own_take_not_one_operation_more(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, changes = ROWS[case]
    counts = []
    for verb in ("start", "fork"):
        engine, _ = new_engine(changes)
        nodes = [engine.start(PROMPT, **asked(options, temperature=1.0)) for _ in range(3)]
        if verb == "fork":
            nodes[1:] = [engine.fork(nodes[0], path) for path in (1, 2)]
        else:
            monkeypatch.setattr(planning, "with_shared", None)
            monkeypatch.setattr(iteration, "hand_out", None)
        for node in nodes:
            engine.scheduler.resume(node._state)
        for _ in range(2):
            engine.step()
        with Operations() as seen:
            engine.step()
        monkeypatch.undo()
        counts.append(seen.count)
    assert counts[0] == counts[1], "of a step after the shared one"
