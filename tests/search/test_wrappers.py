"""Wrappers: policies one after another, and tries that roll over."""

from __future__ import annotations

from typing import Any

import pytest

from dlm.engine.engine import Engine
from dlm.engine.node import Node
from dlm.errors import InvalidRequest
from dlm.search.executor import path_of
from dlm.search.searcher import parse_policy
from tests.search.searches import OPTIONS, PROMPT, Remainder, edges_of, new_engine, require_empty

TOP = Remainder(10**6)


def searched(spec: Any, **more: Any) -> Any:
    engine, _ = new_engine()
    found = engine.search(PROMPT, spec, verifier=TOP, **{**OPTIONS, **more})
    require_empty(engine)
    return found


def test_the_first_stage_is_as_alone_and_the_next_goes_on_from_its_best() -> None:
    alone = searched("best_of(4)")
    found = searched("cascade(('best_of(4)', 'neighbours(rounds=3)'))")
    assert [one.answer.canvas for one in found.candidates[:4]] == [
        one.answer.canvas for one in alone.candidates
    ]
    assert len(found.candidates) == 7, "no start of its own"
    first = found.tree[found.candidates[4].node]
    best = max(found.candidates[:4], key=lambda one: one.score)
    assert first.parent == best.node
    assert found.score == max(one.score for one in found.candidates)


def test_stages_draw_their_own_answers() -> None:
    found = searched("cascade(('best_of(3)', 'best_of(3)'))")
    assert len({one.answer.canvas for one in found.candidates}) == 6
    assert len({edges_of(found, one.node) for one in found.candidates}) == 6


def test_a_stage_stops_when_its_share_is_spent() -> None:
    spec = "cascade(('best_of(100, width=1)', 'best_of(100, width=1)'), shares=(0.25,))"
    found = searched(spec, budget={"nfe": 200})
    second = [one for one in found.candidates if edges_of(found, one.node)[0] >= 1 << 40]
    first = found.candidates[: -len(second)]
    spent = sum(one.nfe for one in found.tree if edges_of(found, one.number)[0] < 1 << 40)
    assert 50 <= spent < 50 + 17
    assert found.costs.nfe == 200
    assert first


def test_a_share_of_nothing_leaves_a_stage_out() -> None:
    found = searched("cascade(('best_of(3)', 'best_of(2)'), (0.0,))", budget={"nfe": 100})
    assert len(found.candidates) == 2


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("cascade(())", "at least one stage"),
        ("cascade(('best_of', 'tree'), shares=(0.1, 0.2))", "first 1 stages"),
        ("cascade(('best_of', 'tree'), shares=(2.0,))", "between 0 and 1"),
        ("cascade(('best_off',))", "in `stages` of cascade: must be one of .*'best_of'"),
        ("cascade(['best_of(0)'])", "in `stages` of cascade: `n` must be .* at least 1, got 0"),
        ("rollover(quota=0)", "at least 1"),
    ],
)
def test_wrong_arguments_are_refused(spec: str, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        parse_policy(spec)


def test_strangers_import_nothing_by_a_stage() -> None:
    with pytest.raises(InvalidRequest, match="trusted code"):
        parse_policy("cascade(('tests.search.test_ends_of_searches:Clinging()',))", trusted=False)
    with pytest.raises(InvalidRequest, match="trusted code"):
        parse_policy("cascade(('cascade((\"os:Path\",))',))", trusted=False)


def score(engine: Engine, node: Node) -> float:
    return float(sum(engine.complete(node).ids) % (TOP.top + 1))


def by_hand(starts: int, quota: int, segments: int) -> tuple[list[int], int]:
    """The canvas and the forwards of rollover budget forcing, written with verbs of the engine."""
    engine, spy = new_engine()
    root = engine.start(PROMPT, **OPTIONS)
    bars = [(segments - 1 - number) / segments for number in range(segments - 1)]
    rows = [engine.fork(root, edge) for edge in range(starts)]
    engine.resume(rows, open_ratio=bars[0])
    node = max(rows, key=lambda row: score(engine, row))
    best, allowed = score(engine, node), quota
    for bar in [*bars[1:], 0.0]:
        if node.done:
            break
        children: list[Node] = []
        for number in range(allowed):
            children.append(engine.fork(node, path_of(node.path, number)))
            engine.resume(children[-1], **({"open_ratio": bar} if bar else {}))
            if score(engine, children[-1]) > best:
                break
        node = max(children, key=lambda row: score(engine, row))
        unused = allowed - len(children) if score(engine, node) > best else 0
        best, allowed = max(best, score(engine, node)), quota + unused
    return list(node.ids), spy.rows


@pytest.mark.parametrize("starts", [1, 3])
@pytest.mark.parametrize("quota", [1, 2, 4])
@pytest.mark.parametrize("segments", [2, 4])
def test_tries_roll_over(starts: int, quota: int, segments: int) -> None:
    policy = parse_policy(f"rollover({starts}, {quota}, {segments})")
    engine, spy = new_engine()
    found = engine.search(PROMPT, policy, verifier=TOP, **OPTIONS)
    canvas, spent = by_hand(starts, quota, segments)
    assert spy.rows == spent == found.costs.row_forwards
    assert canvas in [list(one.answer.canvas) for one in found.candidates]
    require_empty(engine)
