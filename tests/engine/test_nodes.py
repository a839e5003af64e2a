"""Nodes: rows that are parked, resumed, forked, reopened, started from a canvas and completed."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import dlm
from dlm.config import KINDS
from dlm.core import Event, Kind
from dlm.core.canvas import replay
from dlm.engine.engine import Engine
from dlm.engine.live import _stackable
from dlm.engine.node import Node
from dlm.errors import InvalidRequest, Unavailable
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

PROMPT = [7, 3, 9, 21, 14]
CAUSAL = {"attention": "block_causal", "block_length": 8}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no cache": ({}, {}),
    "whole": ({"blocks": "whole", "unmask": "threshold(0.03)"}, {}),
    "prefix": ({"cache": "prefix", "blocks": "fixed(16)"}, {}),
    "dual": ({"cache": "dual", "blocks": "fixed(16)"}, {}),
    "delayed": ({"cache": "delayed", "blocks": "fixed(16)"}, {}),
    "freecache": ({"cache": "freecache", "blocks": "fixed(16)"}, {}),
    "delayed blocks": ({"cache": "delayed_blocks(block=8)", "blocks": "fixed(16)"}, {}),
    "two arms": ({"cache": "dual", "blocks": "fixed(16)", "guide": "cfg(0.5)"}, {}),
    "credit": ({"blocks": "fixed(16)", "guide": "credit(0.5, keep=2)"}, {}),
    "block-causal": ({}, CAUSAL),
    "block-causal, no cache": ({"cache": "none"}, CAUSAL),
    "row editor": (
        {"unmask": "everything", "edit": "rcr(16)", "cache": "dual(on_edit='requery')"},
        {},
    ),
    "block editor": (
        {"unmask": "threshold(0.03)", "edit": "rewrite", "blocks": "fixed(8)"},
        CAUSAL,
    ),
}


class Spy:
    """A decoder that counts the forwards and the positions that it computes."""

    def __init__(self, decoder: Any) -> None:
        self.decoder, self.forwards, self.positions = decoder, 0, 0

    def __call__(self, packed: Any, kv: Any) -> torch.Tensor:
        self.forwards += 1
        self.positions += len(packed.ids)
        found: torch.Tensor = self.decoder(packed, kv)
        return found


def new_engine(changes: dict[str, Any], **options: Any) -> tuple[Engine, Spy]:
    spec = tiny_spec(**changes)
    engine = Engine(random_decoder(spec, 1), info_of(spec), **options)
    spy = Spy(engine.model)
    engine.manager.model = spy
    return engine, spy


def asked(options: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"max_new_tokens": 32, "unmask": "topk", "stop": "none", **options, **more}


def check(engine: Engine, *nodes: Node, events: dict[int, list[Event]] | None = None) -> None:
    """Pages are explained by the rows, and events replay to the canvases."""
    engine.scheduler.check_integrity()
    for node in nodes:
        told = node.events() if events is None else events.setdefault(node.row, [])
        if events is not None:
            told += node.events()
        canvas = replay(told)[node.row]
        assert tuple(canvas.ids) == node.ids
        assert tuple(canvas.kinds) == node.kinds


def on_the_device(engine: Engine, node: Node) -> tuple[int, ...]:
    group = engine.scheduler._parked.groups[node._state]
    return tuple(group.rows.ids[0, : len(node.ids)].tolist())


STOPS: tuple[dict[str, Any], ...] = (
    {"steps": 1},
    {"steps": 3},
    {"blocks": 1},
    {"open_ratio": 0.5},
    {"steps": 7, "blocks": 2, "open_ratio": 0.1},
)


@pytest.mark.parametrize("unroll", [1, 4])
@pytest.mark.parametrize("case", CASES)
def test_parking_and_resuming_change_nothing(case: str, unroll: int) -> None:
    options, changes = CASES[case]
    plain, spy = new_engine(changes)
    answer = plain.generate(PROMPT, **asked(options, temperature=0.7, seed=3))
    engine, seen = new_engine(changes, unroll=unroll)
    node = engine.start(PROMPT, **asked(options, temperature=0.7, seed=3))
    told: dict[int, list[Event]] = {}
    rng = random.Random(0)
    assert engine.kv.pages.in_use == 0, "a node has no pages before its first step"
    while not node.done:
        engine.resume(node, **rng.choice(STOPS))
        check(engine, node, events=told)
        assert node.done or on_the_device(engine, node) == node.ids
    assert node.result().canvas == answer.canvas
    assert node.result().finish_reason == answer.finish_reason
    assert node.nfe == answer.stats.nfe
    assert seen.forwards == spy.forwards, "counted by the model"
    assert engine.kv.pages.in_use == 0


@pytest.mark.parametrize("case", CASES)
def test_a_row_is_parked_at_the_first_point_it_reaches(case: str) -> None:
    options, changes = CASES[case]
    engine, _ = new_engine(changes, unroll=4)
    node = engine.start(PROMPT, **asked(options))
    engine.resume(node, steps=3)
    assert node.done or node.nfe == 3
    engine.resume(node, open_ratio=0.5)
    assert node.done or len(node.open) <= 0.5 * (len(node.ids) - len(PROMPT))
    before = node.nfe
    engine.resume(node, open_ratio=0.9)
    assert node.nfe == before, "it had passed that point"
    node.close()
    check(engine)
    assert engine.kv.pages.in_use == 0


@pytest.mark.parametrize("case", ["no cache", "dual", "block-causal"])
def test_a_block_end_parks_before_the_next_block_is_touched(case: str) -> None:
    options, changes = CASES[case]
    length = 16 if case == "dual" else 8
    engine, _ = new_engine(changes, unroll=4)
    node = engine.start(PROMPT, **asked(options, blocks=f"fixed({length})", max_new_tokens=32))
    engine.resume(node, blocks=1)
    first = min(node.open)
    assert (first if case == "block-causal" else first - len(PROMPT)) % length == 0
    assert node.open == tuple(range(first, len(node.ids)))
    node.close()


@pytest.mark.parametrize("case", CASES)
def test_forks_go_their_own_ways_alone_as_in_a_batch(case: str) -> None:
    options, changes = CASES[case]

    def ends(paths: tuple[int, ...], together: bool) -> list[tuple[int, ...]]:
        engine, spy = new_engine(changes)
        parent = engine.start(PROMPT, **asked(options, temperature=1.0, max_new_tokens=20))
        engine.resume(parent, steps=4)
        children = [engine.fork(parent, path) for path in paths]
        check(engine, *children)
        assert len({child.row for child in (parent, *children)}) == 1 + len(paths)
        if together:
            engine.resume(children)
        for child in children:
            engine.resume(child)
        check(engine)
        paid = [child.nfe - child.inherited for child in children]
        if together:
            assert spy.forwards <= max(child.nfe for child in children)
        else:
            assert spy.forwards == parent.nfe + sum(paid), "every forward is counted once"
        before = parent.ids
        engine.resume(parent)
        assert before[: len(PROMPT)] == parent.ids[: len(PROMPT)]
        assert engine.kv.pages.in_use == 0
        return [child.ids for child in children]

    alone = [ends((path,), together=False)[0] for path in (0, 1, 2)]
    assert ends((0, 1, 2), together=True) == alone
    assert ends((2, 0, 1), together=False) == [alone[2], alone[0], alone[1]]
    assert len(set(alone)) > 1 or case in ("whole",)
    engine, _ = new_engine(changes)
    options = asked(options, temperature=1.0, max_new_tokens=20)
    assert engine.generate(PROMPT, **options).canvas == alone[0]


@pytest.mark.parametrize("when", ["before", "parked", "ended", "block end"])
@pytest.mark.parametrize("case", CASES)
def test_reopened_positions_are_filled_again(case: str, when: str) -> None:
    options, changes = CASES[case]
    engine, _ = new_engine(changes, max_rows=8)
    mate = engine.submit(list(reversed(PROMPT)), **asked(options, seed=9))
    lonely, _ = new_engine(changes)
    expected = lonely.generate(list(reversed(PROMPT)), **asked(options, seed=9)).canvas
    canvas = [11] * 12 if when == "before" else None
    node = engine.start(PROMPT, canvas, **asked(options, temperature=0.7))
    stop: dict[str, Any] = {"steps": 9} if when == "parked" else {"blocks": 1}
    if when != "before":
        engine.resume(node, **({} if when == "ended" else stop))
    told: dict[int, list[Event]] = {}
    check(engine, *(() if when == "before" else (node,)), events=told)
    filled = [at for at, kind in enumerate(node.kinds) if kind == Kind.COMMITTED]
    chosen = filled[1::3]
    before = node.ids
    engine.reopen(node, chosen)
    assert set(chosen) <= set(node.open)
    assert not node.done
    if when in ("parked", "block end") and node._state in engine.scheduler._parked.groups:
        assert on_the_device(engine, node) == node.ids
    untouched = set(filled) - set(chosen)
    if "edit" not in options:
        assert all(node.ids[at] == before[at] for at in untouched)
    engine.resume(node)
    check(engine, node, events=told)
    assert node.done
    assert not node.open
    assert all(kind <= Kind.COMMITTED for kind in node.kinds)
    if "edit" not in options:
        assert all(node.ids[at] == before[at] for at in untouched)
    assert mate.result().canvas == expected, "batch mates are untouched"
    assert engine.kv.pages.in_use == 0


@pytest.mark.parametrize("seed", range(12))
def test_a_reopened_block_causal_row_equals_one_without_a_cache(seed: int) -> None:
    rng = random.Random(seed)
    chosen = sorted(rng.sample(range(len(PROMPT), 24), rng.randint(1, 6)))
    found = []
    for cache in ("block_causal", "none"):
        engine, _ = new_engine(CAUSAL, prefix_bytes=2**20 if seed % 2 else 0)
        options = asked({}, cache=cache, temperature=0.5, seed=seed, max_new_tokens=43)
        node = engine.start(PROMPT, **options)
        engine.resume(node, blocks=4)
        twin = engine.fork(node, 5)
        engine.reopen(node, chosen)
        engine.resume([node, twin], steps=2)
        engine.reopen(twin, chosen[:1])
        engine.resume([node, twin])
        found.append((node.ids, twin.ids))
        check(engine)
    assert found[0] == found[1]


def test_the_keys_before_the_first_reopened_block_are_kept() -> None:
    engine, spy = new_engine(CAUSAL)
    node = engine.start(PROMPT, **asked({}, max_new_tokens=59))
    engine.resume(node, blocks=6)
    engine.reopen(node, [33])
    before = spy.positions
    engine.resume(node, steps=1)
    assert spy.positions - before == 8, "the block of position 33 alone"
    node.close()


def test_a_row_that_shares_kept_pages_is_reopened_on_pages_of_its_own() -> None:
    engine, _ = new_engine(CAUSAL, prefix_bytes=2**20)
    prompt = [5 + i % 40 for i in range(37)]
    options = asked({}, max_new_tokens=59, seed=1)
    first = engine.generate(prompt, **options)
    node = engine.start(prompt, **options)
    engine.resume(node, blocks=4)
    engine.reopen(node, [45])
    engine.resume(node)
    check(engine)
    again = engine.generate(prompt, **options)
    assert again.canvas == first.canvas, "what is kept for others has not been written"
    assert again.stats.reused > 0


@pytest.mark.parametrize("case", CASES)
def test_a_row_starts_from_a_canvas(case: str) -> None:
    options, changes = CASES[case]
    engine, spy = new_engine(changes)
    canvas = [11, None, 12, 13, None, None] + [14] * 20 + [None] * 6
    node = engine.start(PROMPT, canvas, **asked({k: v for k, v in options.items()}))
    start = len(PROMPT)
    assert [k for k in node.kinds[start : start + 3]] == [Kind.COMMITTED, Kind.MASK, Kind.COMMITTED]
    engine.resume(node)
    check(engine, node)
    assert not node.open
    if "edit" not in options:
        assert all(
            token is None or node.ids[start + at] == token for at, token in enumerate(canvas)
        )
        assert node.result().stats.tokens == 32
    assert spy.forwards == node.nfe


def test_a_full_canvas_ends_at_once_and_goes_through_editors_where_there_are_some() -> None:
    engine, spy = new_engine({})
    node = engine.start(PROMPT, [11] * 16, **asked({"max_new_tokens": 16}))
    engine.resume(node)
    assert node.done
    assert spy.forwards == 0
    assert node.ids[len(PROMPT) :] == (11,) * 16
    edited = engine.start(
        PROMPT, [11] * 16, **asked({"max_new_tokens": 16, "unmask": "everything", "edit": "rcr(8)"})
    )
    engine.resume(edited)
    assert edited.done
    assert spy.forwards == edited.nfe > 0
    check(engine, edited)


def test_the_length_of_a_canvas_is_the_length_of_the_answer() -> None:
    engine, _ = new_engine({})
    node = engine.start(PROMPT, [11, None, 12])
    assert len(node.ids) == len(PROMPT) + 3


@pytest.mark.parametrize("case", ["whole", "block-causal"])
def test_a_draft_is_completed_without_a_forward(case: str) -> None:
    options, changes = CASES[case]
    engine, spy = new_engine(changes)
    node = engine.start(PROMPT, **asked(options, unmask="topk"))
    with pytest.raises(InvalidRequest, match="has taken no step"):
        engine.complete(node)
    engine.resume(node, steps=5)
    forwards, before, events = spy.forwards, node.ids, node.events()
    draft = engine.complete(node)
    assert spy.forwards == forwards
    assert node.ids == before
    assert not node.events(), "the node itself stays as it is"
    assert draft.stats.nfe == node.nfe
    committed = {at for at, kind in enumerate(node.kinds) if kind <= Kind.COMMITTED}
    assert all(draft.canvas[at] == before[at] for at in committed)
    if case == "whole":
        assert draft.finish_reason == "length"
        assert len(draft.ids) == 32
    else:
        assert draft.finish_reason == "draft"
        assert 0 < len(draft.ids) < 32
    twin = engine.fork(node, 0)
    engine.resume(twin, steps=1)
    new = set(node.open) - set(twin.open)
    assert new
    assert all(len(draft.canvas) > at for at in new)
    assert events
    node.close()
    twin.close()


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("case", ["no cache", "dual", "whole", "block-causal", "row editor"])
def test_the_rest_is_completed_in_cheap_steps(case: str, steps: int) -> None:
    options, changes = CASES[case]
    engine, spy = new_engine(changes)
    node = engine.start(PROMPT, **asked(options))
    engine.resume(node, steps=3)
    before, forwards = node.ids, spy.forwards
    blocks = len({at // 8 for at in node.open}) if case == "block-causal" else 1
    found = engine.complete(node, steps=steps)
    assert spy.forwards - forwards <= steps * blocks
    assert found.stats.nfe == node.nfe + spy.forwards - forwards
    assert node.ids == before
    assert found.finish_reason == "length"
    assert len(found.ids) == 32
    committed = [at for at, kind in enumerate(node.kinds) if kind == Kind.COMMITTED]
    assert all(found.canvas[at] == before[at] for at in committed)
    node.close()
    assert engine.kv.pages.in_use == 0


def test_a_node_that_is_let_go_gives_its_pages_back() -> None:
    engine, _ = new_engine({})
    node = engine.start(PROMPT, **asked({}))
    engine.resume(node, steps=2)
    assert engine.kv.pages.in_use > 0
    del node
    gc.collect()
    engine.step()
    assert engine.kv.pages.in_use == 0
    with engine.start(PROMPT, **asked({})) as again:
        engine.resume(again, steps=2)
        assert engine.kv.pages.in_use > 0
    assert again.done
    assert engine.kv.pages.in_use == 0


def test_log_probabilities_are_those_of_the_commits() -> None:
    engine, _ = new_engine({})
    options = asked({}, temperature=0.0)
    answer = engine.generate(PROMPT, **options)
    node = engine.start(PROMPT, **options)
    engine.resume(node)
    start = len(PROMPT)
    assert node.logprobs[start:] == answer.logprobs
    assert all(value != value for value in node.logprobs[:start])


WRONG: tuple[tuple[str, str, Callable[[Engine, Node], Any]], ...] = (
    ("positions", "must be a list of integers, got 7", lambda e, n: e.reopen(n, 7)),
    ("positions", "0 to 36, got 'a'", lambda e, n: e.reopen(n, ["a"])),
    (
        "positions",
        "must be committed positions, got 0, which is PROMPT",
        lambda e, n: e.reopen(n, [0]),
    ),
    (
        "positions",
        "must be committed positions, got 36, which is MASK",
        lambda e, n: e.reopen(n, [36]),
    ),
    (
        "positions",
        "must be positions of the canvas, 0 to 36, got 99",
        lambda e, n: e.reopen(n, [99]),
    ),
    ("steps", "must be None or an integer of at least 1, got 0", lambda e, n: e.resume(n, steps=0)),
    (
        "blocks",
        "must be None or an integer of at least 1, got 0",
        lambda e, n: e.resume(n, blocks=0),
    ),
    (
        "open_ratio",
        "must be a finite number between 0 and 1",
        lambda e, n: e.resume(n, open_ratio=2),
    ),
    ("path", "must be an integer", lambda e, n: e.fork(n, path=-1)),
    ("steps", "must be an integer of at least 0", lambda e, n: e.complete(n, steps=-1)),
    ("n", "must be 1: a node is one row", lambda e, n: e.start(PROMPT, n=2)),
    ("canvas", "must be a text or a list of ids", lambda e, n: e.start(PROMPT, {0: 5})),
    (
        "max_new_tokens",
        "at least the 3 positions of `canvas`",
        lambda e, n: e.start(PROMPT, [5] * 3, max_new_tokens=2),
    ),
    ("option", "must be one of", lambda e, n: e.start(PROMPT, speed=2)),
)


@pytest.mark.parametrize(("param", "message", "call"), WRONG)
def test_mistakes_name_the_parameter(
    param: str, message: str, call: Callable[[Engine, Node], Any]
) -> None:
    engine, _ = new_engine({})
    node = engine.start(PROMPT, **asked({}))
    engine.resume(node, steps=2)
    before = node.ids
    with pytest.raises(InvalidRequest, match=message) as error:
        call(engine, node)
    assert error.value.param == param
    assert node.ids == before
    node.close()


def test_parked_rows_hold_pages_and_a_pool_without_room_says_so() -> None:
    spec = tiny_spec()
    page = spec.kv_bytes_per_token(4) * 16
    engine, _ = new_engine({}, kv_bytes=5 * page)
    node = engine.start(PROMPT, **asked({}))
    engine.resume(node, steps=2)
    with pytest.raises(Unavailable):
        engine.fork(node, 1)
    with pytest.raises(Unavailable):
        engine.generate(PROMPT, **asked({}))
    engine.resume(node)
    assert node.done
    assert len(engine.generate(PROMPT, **asked({})).ids) == 32


SAMPLERS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 0.7},
    {"temperature": 1.3, "top_k": 5},
    {"temperature": 1.0, "top_p": 0.6},
)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_proposal_probabilities_are_those_of_the_draws(sampler: dict[str, Any]) -> None:
    """By the definition, on the logits of the canvas before each step."""
    engine, _ = new_engine({})
    engine.submit(PROMPT, **asked({}, temperature=0.9))  # a mate, in the same calls
    node = engine.start(PROMPT, **asked({"blocks": "whole"}, max_new_tokens=8, **sampler))
    while not node.done:
        ids, still_open = list(node.ids), node.open
        engine.resume(node, steps=1)
        for at in set(still_open) - set(node.open):
            logits = engine.logits([ids])[0, at].double()
            clean = torch.log_softmax(logits, 0)[node.ids[at]]
            assert node.logprobs[at] == pytest.approx(float(clean), abs=1e-4)
            logits[engine.info.mask_id] = -torch.inf
            drawn = torch.tensor(0.0)
            if sampler["temperature"]:
                probs = torch.softmax(logits / sampler["temperature"], 0)
                order = probs.argsort(descending=True)
                before = probs[order].cumsum(0) - probs[order]
                kept = order[before < sampler.get("top_p", 1.0)][: sampler.get("top_k")]
                assert node.ids[at] in kept
                drawn = (probs[node.ids[at]] / probs[kept].sum()).log()
            assert node.proposal_logprobs[at] == pytest.approx(float(drawn), abs=1e-4)
    answer = node.result()
    assert answer.proposal_logprobs == node.proposal_logprobs[len(PROMPT) :]
    events = [Event.from_json(event.to_json()) for event in node.events()]
    assert replay(events)[node.row].drawn == node._state.canvas.drawn


def test_a_node_that_another_thread_decodes_is_refused() -> None:
    engine, _ = new_engine({})
    node = engine.start(PROMPT, **asked({}))
    engine.resume(node, steps=2)
    engine.scheduler.resume(node._state)  # as another thread would, before its first step
    for call in (engine.resume, lambda n: engine.reopen(n, [5])):
        with pytest.raises(InvalidRequest, match="another thread is decoding it"):
            call(node)
    while not node.done:
        engine.step()
    check(engine, node)


def test_rows_that_fail_end_alone_and_cannot_go_on() -> None:
    class Broken(dlm.Unmasker):
        def propose(self, view: dlm.StepView) -> dlm.Proposal:
            if int(view.row.step.max()) > 2:
                raise RuntimeError("broken on purpose")
            return dlm.Proposal(view.eligible & (view.pos == view.pos.amin(dim=1, keepdim=True)))

    engine, _ = new_engine({})
    node = engine.start(PROMPT, **asked({}, unmask=dataclass(frozen=True)(Broken)()))
    mate = engine.start(PROMPT, **asked({}))
    engine.resume([node, mate], steps=2)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        engine.resume([node, mate])
    assert mate.done
    assert len(mate.result().ids) == 32
    with pytest.raises(RuntimeError, match="broken on purpose"):
        node.result()
    with pytest.raises(InvalidRequest, match="has failed"):
        engine.reopen(node, [len(PROMPT)])
    assert engine.kv.pages.in_use == 0


KINDS_TRIED = [
    (kind, name)
    for kind in ("blocks", "unmask", "edit", "stop", "cache")
    for name in KINDS[kind].names()
]
GIVEN = {"nfe": "nfe(20)", "seconds": "seconds(60)"}


@pytest.mark.parametrize("changes", [{}, CAUSAL])
@pytest.mark.parametrize(("kind", "name"), KINDS_TRIED)
def test_every_part_works_with_nodes(kind: str, name: str, changes: dict[str, Any]) -> None:
    engine, _ = new_engine(changes)
    options = {kind: GIVEN.get(name, name), **({"unmask": "everything"} if kind == "edit" else {})}
    try:
        node = engine.start(PROMPT, max_new_tokens=24, **options)
    except InvalidRequest:
        return  # it does not suit the model, or not alone
    engine.resume(node, steps=2)
    for steps in (0, 1, 3):
        found = engine.complete(node, steps=steps)
        assert found.finish_reason in ("length", "stop", *(["draft"] if steps == 0 else []))
    twin = engine.fork(node, 1)
    engine.resume(twin, steps=3)
    for _ in range(2):  # while it goes on, and when it has ended
        engine.reopen(
            twin, [at for at, kind in enumerate(twin.kinds) if kind == Kind.COMMITTED][:3]
        )
        engine.resume(twin)
        assert twin.done
        assert name == "nfe" or not twin.open
    check(engine, twin)
    node.close()
    assert engine.kv.pages.in_use == 0


def test_a_closed_node_that_is_reopened_gives_its_pages_back_when_it_is_let_go() -> None:
    engine, _ = new_engine({})
    node = engine.start(PROMPT, **asked({}))
    engine.resume(node, steps=4)
    node.close()
    engine.reopen(node, [at for at, kind in enumerate(node.kinds) if kind == Kind.COMMITTED][:1])
    engine.resume(node, steps=1)
    assert engine.kv.pages.in_use > 0
    del node
    gc.collect()
    engine.step()
    assert engine.kv.pages.in_use == 0


def test_nodes_that_find_no_room_stay_and_go_on_when_there_is_some() -> None:
    page = tiny_spec().kv_bytes_per_token(4) * 16
    engine, _ = new_engine({}, kv_bytes=8 * page)
    nodes = [engine.start(PROMPT, **asked({}, seed=seed)) for seed in range(4)]
    with pytest.raises(Unavailable, match="key/value pool is full"):
        engine.resume(nodes, steps=2)
    assert sum(node.nfe == 2 for node in nodes) == 2
    assert not any(node.done for node in nodes)
    for node in nodes:
        engine.resume(node)
    assert all(node.done and not node.open for node in nodes)


def test_an_interrupt_ends_what_is_decoded_and_leaves_parked_rows() -> None:
    engine, spy = new_engine({})
    parked = engine.start(PROMPT, **asked({}))
    engine.resume(parked, steps=2)
    other = engine.start(PROMPT, **asked({}, seed=1))

    def interrupted(packed: Any, kv: Any) -> torch.Tensor:
        raise KeyboardInterrupt

    engine.manager.model = interrupted
    with pytest.raises(KeyboardInterrupt):
        engine.resume(other)
    assert other.done
    assert not parked.done
    engine.manager.model = spy
    engine.resume(parked)
    assert not parked.open
    assert engine.kv.pages.in_use == 0


def test_a_half_filled_canvas_is_shown_as_text() -> None:
    engine = dlm.load()
    node = engine.start("Sort these words: wolf, cow, cat.", max_new_tokens=32, unmask="topk")
    assert node.text() == "_" * 32
    engine.resume(node, steps=3)
    assert (node.text("#") or "").count("#") == len(node.open) == 29
    engine.resume(node)
    assert (node.text() or "").startswith(node.result().text or "?")
    node.close()


@pytest.mark.parametrize("call", ["resume", "reopen", "fork", "complete"])
def test_what_is_no_node_is_refused(call: str) -> None:
    engine, _ = new_engine({})
    arguments = {"reopen": ([5],), "fork": (1,)}.get(call, ())
    with pytest.raises(InvalidRequest, match="must be a node, as `start` gives it, got 5"):
        getattr(engine, call)([5] if call == "resume" else 5, *arguments)


def test_new_rows_and_parked_ones_are_stacked_by_device() -> None:
    """Parked rows stay on the device that decodes them; new ones are made on the CPU."""
    engine, _ = new_engine({})
    parked = engine.start(PROMPT, **asked({}))
    engine.resume(parked, steps=1)
    (here,) = engine.scheduler._parked.groups.values()
    there = here.to(torch.device("meta"))
    assert _stackable(here, here.select(torch.tensor([0])))
    assert there.signature == here.signature
    assert not _stackable(here, there)
    parked.close()


@pytest.mark.gpu
def test_parked_and_new_rows_go_on_together_on_a_gpu() -> None:
    engine = dlm.load("tiny", device="cuda")
    options = {"max_new_tokens": 16, "unmask": "topk"}
    node = engine.start("hello", **options)
    engine.resume(node, steps=2)
    fresh = engine.start("hello", **options)
    engine.resume([node, fresh])
    assert node.ids == fresh.ids
