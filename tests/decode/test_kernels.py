"""The operations of a step, bit for bit beside the plainest way to write them."""

import itertools
from types import SimpleNamespace

import torch
from hypothesis import given
from hypothesis import strategies as st

from dlm.core import BLOCK_COLUMNS, Absorbing, Kind, Proposal, StepView, Uniform
from dlm.decode.apply import (
    Op,
    count_per_block,
    effective,
    forced_commits,
    resolve,
    write_update,
)
from dlm.unmasking.scores import top
from dlm.unmasking.unmask.topk import TopK
from tests.unmasking.views import MASK, make_view

SCORES = st.sampled_from([0.0, 0.125, 0.5, 0.5, 1.0, float("nan"), float("-inf")])  # many ties


@st.composite
def masks(draw, rows, width):
    """A mask `[R, W]`."""
    row = st.lists(st.booleans(), min_size=width, max_size=width)
    return torch.tensor(draw(st.lists(row, min_size=rows, max_size=rows)))


@st.composite
def scored(draw, scores=SCORES):
    """Scores `[R, W]` and two masks of their shape."""
    rows, width = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    row = st.lists(scores, min_size=width, max_size=width)
    score = torch.tensor(draw(st.lists(row, min_size=rows, max_size=rows)))
    return score, draw(masks(rows, width)), draw(masks(rows, width))


def best_by_sorting(score, among, count):
    """Ranks by a stable sort, written to their places."""
    order = score.masked_fill(~among, -torch.inf).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(score.shape[1]).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places)
    return among & (rank < count)


@given(scored(), st.lists(st.integers(-1, 10), min_size=3, max_size=3))
def test_the_best_positions(case, counts):
    score, among, _ = case
    count = torch.tensor(counts[: len(score)])[:, None]
    assert torch.equal(top(score, among, count), best_by_sorting(score, among, count))


@given(scored())
def test_one_best_position(case):
    score, among, _ = case
    assert torch.equal(top(score, among, 1), best_by_sorting(score, among, torch.tensor(1)))


def forced_by_hand(view: StepView, commit):
    """Block by block: the most confident position that must progress, the leftmost of equals."""
    found = torch.zeros_like(commit)
    for r, (must, block) in enumerate(zip(view.must_progress, view.block, strict=True)):
        for column in range(BLOCK_COLUMNS):
            own = must & (block == column)
            if bool(own.any()) and not bool((commit[r] & own).any()):
                c = view.confidence[r].nan_to_num(0.0).masked_fill(~own, -1.0)
                found[r, (c == c.amax()).nonzero()[0]] = True
    return found


CONFIDENCES = st.sampled_from([0.0, 0.25, 0.5, 0.5, 1.0, float("nan")])


@given(scored(CONFIDENCES), st.booleans(), st.data())
def test_forced_commits(case, one_block, data):
    c, must, commit = case
    view = make_view(TopK(), c.tolist())
    block = torch.zeros_like(view.block)
    if not one_block:
        block[:, data.draw(st.integers(0, c.shape[1])) :] = 1
    window = view.window._replace(block=block, one_block=one_block)
    view = view._replace(window=window, must_progress=must)
    assert torch.equal(forced_commits(view, commit), forced_by_hand(view, commit))
    if one_block:  # the general form, too
        general = view._replace(window=window._replace(one_block=False))
        assert torch.equal(forced_commits(general, commit), forced_by_hand(view, commit))


@given(scored())
def test_positions_of_each_block_are_counted(case):
    _, mask, _ = case
    block = torch.randint(0, BLOCK_COLUMNS, mask.shape, generator=torch.Generator().manual_seed(1))
    counts = [
        [int((mask[r] & (block[r] == column)).sum()) for column in range(BLOCK_COLUMNS)]
        for r in range(len(mask))
    ]
    assert count_per_block(mask, block).tolist() == counts


KINDS = [Kind.PROMPT, Kind.COMMITTED, Kind.COMMITTED, Kind.MASK, Kind.MASK, Kind.PAD]
IDS = st.sampled_from([5, 6, MASK])


@st.composite
def proposals(draw):
    """A view of two rows, some of it without logits, and any proposal for it."""
    shape = 2, draw(st.integers(1, 6))

    def table(values):
        row = st.lists(values, min_size=shape[1], max_size=shape[1])
        return draw(st.lists(row, min_size=2, max_size=2))

    c = torch.rand(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    kinds = table(st.sampled_from(KINDS))
    view = make_view(TopK(), c.tolist(), kind=kinds, ids=table(IDS), token=table(IDS))
    view = view._replace(window=view.window._replace(scored=draw(masks(*shape))))
    edits = {name: draw(st.none() | masks(*shape)) for name in ("remask", "replace", "renoise")}
    return view, Proposal(draw(masks(*shape)), **edits)


def change_by_hand(view, proposal, process, r, w):
    """The id and kind of one position afterwards, its change, and whether a token was written."""

    def wants(name):
        mask = getattr(proposal, name)
        return mask is not None and bool(mask[r, w])

    token, old, kind = (int(t[r, w]) for t in (view.token, view.ids, view.kind))
    prior = int(process.prior(view.row.seed, view.row.path, view.pos, view.row.step)[r, w])
    writes = bool(view.scored[r, w]) and token != MASK
    if kind == Kind.COMMITTED:
        if wants("remask"):
            return prior, process.open_kind, Op.REMASK, False
        if wants("replace") and writes and token != old:
            return token, kind, Op.REPLACE, True
    if kind >= Kind.MASK:
        if wants("commit") and not wants("remask") and writes:
            return token, Kind.COMMITTED, Op.COMMIT, True
        if wants("renoise"):
            return prior, kind, Op.RENOISE, False
    return old, kind, Op.NONE, False


@given(proposals(), st.sampled_from([Absorbing(MASK), Uniform(64)]))
def test_what_a_proposal_does(case, process):
    view, proposal = case
    update = resolve(view, effective(view, proposal, MASK), process)
    for r, w in itertools.product(range(view.ids.shape[0]), range(view.ids.shape[1])):
        found = (update.ids, update.kind, update.op, update.written)
        by_hand = change_by_hand(view, proposal, process, r, w)
        assert tuple(int(t[r, w]) for t in found) == tuple(map(int, by_hand))


@given(proposals(), st.integers(0, 50))
def test_only_what_is_written_is_noted(case, step):
    """The last commit of each position, and nothing outside the window but the spare column."""
    view, proposal = case
    width = view.pos.shape[1]
    shape = 2, width + 2  # a position that the step does not show, and the spare one
    rows = SimpleNamespace(
        ids=torch.full(shape, 9), kind=torch.full(shape, int(Kind.PAD), dtype=torch.int8),
        conf=torch.full(shape, -1.0), born=torch.full(shape, -1), edits=torch.zeros(shape).long(),
        step=torch.tensor([step, step + 1]),
    )  # fmt: skip
    update = resolve(view, effective(view, proposal, MASK), Absorbing(MASK))
    group = SimpleNamespace(rows=rows, parts=SimpleNamespace(edit=True))
    steps = rows.step[:, None].expand_as(view.pos)
    view = view._replace(window=view.window._replace(spare=torch.tensor(width + 1)))
    write_update(group, SimpleNamespace(step=steps), view, update)
    written, before = update.written, torch.full((2, width), -1)
    assert torch.equal(rows.ids[:, :width], update.ids)
    assert torch.equal(rows.kind[:, :width], update.kind)
    conf = torch.where(written, view.confidence, before.float())
    assert torch.equal(rows.conf[:, :width], conf)
    assert torch.equal(rows.born[:, :width], torch.where(written, rows.step[:, None], before))
    assert torch.equal(rows.edits[:, :width], (update.op >= Op.REMASK).long())
    for name, value in (("ids", 9), ("kind", Kind.PAD), ("conf", -1), ("born", -1), ("edits", 0)):
        assert getattr(rows, name)[:, width].tolist() == [value] * 2
