"""Stop rules against their definitions written out."""

from types import SimpleNamespace

import torch
from hypothesis import given
from hypothesis import strategies as st

from dlm.core import Kind
from dlm.unmasking.stop.end_ids import Eos
from tests.unmasking.views import INFO, make_view

OPEN, DONE, GIVEN = Kind.MASK, Kind.COMMITTED, Kind.PROMPT
END, WORD = 1, 5


@st.composite
def canvases(draw):
    """Ids and kinds of a canvas, where its answer ends, and the bounds of the open block."""
    width = draw(st.integers(1, 8))
    kinds = draw(st.lists(st.sampled_from([OPEN, DONE, DONE]), min_size=width, max_size=width))
    kinds = [GIVEN] * draw(st.integers(0, width)) + kinds
    ids = draw(st.lists(st.sampled_from([END, WORD]), min_size=len(kinds), max_size=len(kinds)))
    bounds = st.integers(0, len(kinds))
    start, end = sorted(draw(st.tuples(bounds, bounds)))
    return ids, kinds, draw(st.integers(1, len(kinds))), start, end


def ends(when, ids, kinds, limit, start, end):
    """What the rule says of a canvas that the view shows whole."""
    rule = Eos(when).bind(INFO)
    view = make_view(rule, [[0.5] * len(ids)], ids=ids, kind=kinds, start=start, end=end)
    view = view._replace(row=view.row._replace(limit=torch.tensor([limit])))
    rows = SimpleNamespace(
        ids=view.ids,
        kind=view.kind,
        limit=view.row.limit,
        capacity=len(ids),
        device=view.ids.device,
    )
    return rule(rows, view).done.tolist() == [True]


@given(canvases())
def test_eos_prefix_ends_where_nothing_before_an_end_id_of_the_answer_is_open(canvas):
    """What a block-causal canvas has behind the answer, its limit, is no part of it."""
    ids, kinds, limit, *_ = canvas
    found = [p for p in range(limit) if kinds[p] == DONE and ids[p] == END]
    expected = any(OPEN not in kinds[:p] for p in found)
    assert ends("prefix", *canvas) == expected


@given(canvases())
def test_eos_block_ends_where_the_block_of_the_first_end_id_of_the_answer_is_clean(canvas):
    ids, kinds, limit, start, end = canvas
    found = [p for p in range(limit) if kinds[p] == DONE and ids[p] == END]
    border = 0 if not found else end if start <= found[0] < end else found[0]
    assert ends("block", *canvas) == (bool(found) and OPEN not in kinds[:border])


def test_an_end_id_behind_the_answer_ends_nothing():
    """Five new tokens of a canvas of eight: the last three are cut."""
    ids, kinds = [WORD] * 5 + [END] * 3, [DONE] * 8
    for when in ("prefix", "block"):
        assert not ends(when, ids, kinds, limit=5, start=4, end=8)
        assert ends(when, ids, kinds, limit=6, start=4, end=8)
